# What people call often. Each recipe is one command, and nothing depends on just(1).

# A little of every benchmark, in less than five minutes
bench *arguments:
    cargo run --release -p bench -- --quick {{arguments}}

# All sizes, many rounds: about three quarters of an hour
bench-full *arguments:
    cargo run --release -p bench -- --full {{arguments}}

# The tests
test:
    cargo test --workspace

# Everything that has to hold before a change lands
ci:
    .ci/run

# The tests on every CPU and kernel that can be booted here: hours. Writes docs/platforms.md
matrix *arguments:
    scripts/matrix {{arguments}}
