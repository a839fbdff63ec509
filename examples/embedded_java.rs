//! A Rust program with a Java VM in it, which drops privileges while Java's garbage collector stops threads.
//!
//! It shows that the VM's threads are changed with all others: those of Java, the compiler and the collector. The
//! collector stops threads at points of its own, and libpsx works beside it. The example needs a JDK (Debian:
//! default-jdk-headless). Run it as root:
//!
//! ```sh
//! scripts/examples --fetch && cargo build -p examples --features jvm && sudo target/debug/embedded_java
//! target/examples
//! ```
//!
//! The argument is the directory with the compiled class. A line of input makes it drop privileges.

use jni::{InitArgsBuilder, JNIVersion, JavaVM, jni_sig, jni_str};
use privileges::Privileges;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let classes = std::env::args().nth(1).ok_or("usage: jvm DIRECTORY")?;
    let arguments = InitArgsBuilder::new()
        .version(JNIVersion::V1_8)
        .option(format!("-Djava.class.path={classes}"))
        .option("-Xmx64m")
        .build()?;
    let vm = JavaVM::new(arguments)?;
    let call = |name: &jni::strings::JNIStr| -> jni::errors::Result<i32> {
        // This thread is attached to the VM only for the call.
        vm.attach_current_thread(|env| {
            env.call_static_method(jni_str!("Churn"), name, jni_sig!("()I"), &[])?.i()
        })
    };
    println!("{} threads of Java", call(jni_str!("start"))?);
    let mut lines = std::io::stdin().lines();
    if lines.next().transpose()?.is_some() {
        let before = call(jni_str!("collections"))?;
        for _ in 0..100 {
            // This change leaves the state as it is. It makes a hundred stops beside the collector.
            libpsx::process::identities(0)?;
        }
        let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
        let applied = plan.apply()?;
        println!("{} threads are nobody", applied.threads);
        println!("{} collections meanwhile", call(jni_str!("collections"))? - before);
        println!("{} threads of Java can read what only root may", call(jni_str!("attempts"))?);
    }
    lines.for_each(drop);
    // A return from main would wait for Java's threads.
    std::process::exit(0)
}
