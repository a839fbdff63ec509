# Frequently used commands. Each recipe is one command, and nothing depends on just(1).

# Run a little of every benchmark, in less than five minutes
bench *arguments:
    cargo run --release -p bench -- --quick {{arguments}}

# Run all sizes and many rounds of the benchmark: about three quarters of an hour
bench-full *arguments:
    cargo run --release -p bench -- --full {{arguments}}

# Run the tests
test:
    cargo test --workspace

# Check everything that has to hold before a change lands
ci:
    .ci/run

# Build the book, and check its links and programs
book:
    scripts/book

# Pack the crates as they would be published, and install them in a clean directory
package:
    scripts/package

# Build the Debian packages (needs root, takes some minutes)
deb:
    scripts/deb

# Do everything for a release except the upload
release *arguments:
    scripts/release {{arguments}}

# The tests on every CPU and kernel that can be booted here: hours. Writes docs/platforms.md
matrix *arguments:
    scripts/matrix {{arguments}}
