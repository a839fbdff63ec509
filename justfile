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

# The model of a stop, with Spin: every configuration, probe and mutation that CI checks
model *names:
    model/run {{names}}

# The model with larger bounds as well: hours, and up to 16 GiB
model-full:
    MODEL_MEMORY=16000 model/run --full

# Runs under load, whose changes of state must be paths of the model
traces seconds="2":
    model/traces {{seconds}}

# The rendezvous, entry and lock code itself, in every interleaving of small cases
loom:
    CARGO_TARGET_DIR=target/loom RUSTFLAGS='--cfg loom' cargo test --release -p libpsx --lib

# The engine on a kernel in the program, without Miri
twin:
    CARGO_TARGET_DIR=target/twin RUSTFLAGS='--cfg psx_twin' cargo test -p libpsx --lib engine::twin

# The same under Miri, with several schedules (needs a nightly toolchain with the component miri)
miri:
    MIRIFLAGS='-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-many-seeds=0..8' \
        cargo +nightly miri test -p libpsx --lib engine::twin

# Everything that threads can do, at once in one process: so many seconds, and a seed (needs root)
soak seconds="600" *seed:
    scripts/soak {{seconds}} {{seed}}

# The parsers beside second implementations, so many seconds each
fuzz seconds="60" *targets:
    scripts/fuzz {{seconds}} {{targets}}

# Changes of the engine, one at a time, each of which must make a test fail: hours without --shard K/N or files
mutants *arguments:
    scripts/mutants {{arguments}}

# The lines of src/ that no test executes, and why
coverage *arguments:
    scripts/coverage {{arguments}}

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

# Every other CPU: clippy, the C library, and a program that gives up root under qemu-user
cpus:
    .ci/run cpus

# Rust programs on musl
musl:
    .ci/run musl

# Other kernels, booted in an emulator: workers, Landlock, a drop
vm:
    .ci/run vm
