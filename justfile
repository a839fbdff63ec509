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

# The book, with its links and programs checked
book:
    scripts/book

# The crates as they would be published, installed in a clean folder
package:
    scripts/package

# The Debian packages (root, some minutes)
deb:
    scripts/deb

# Everything for a release but the upload
release *arguments:
    scripts/release {{arguments}}

# The tests on every CPU and kernel that can be booted here: hours. Writes docs/platforms.md
matrix *arguments:
    scripts/matrix {{arguments}}
