//! A service of systemd (`Type=notify`) that binds its port as root, becomes `nobody`, and then says that it is ready.
//!
//! It shows when to tell systemd: after [`privileges::Plan::apply`] has verified every thread. Units that are ordered
//! after this one then never see it with root's privileges. If something does not hold, the process is killed and the
//! unit fails. `examples/systemd/psx-example.service` is the unit. Without systemd:
//!
//! ```sh
//! cargo build -p examples && sudo target/debug/notify 127.0.0.1:0
//! ```

use privileges::Privileges;
use sd_notify::NotifyState;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:79".to_owned());
    let listener = TcpListener::bind(address).await?;
    let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
    let applied = plan.apply()?;
    let status = format!("nobody in {} threads, on {}", applied.threads, listener.local_addr()?);
    println!("{status}");
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])?;
    loop {
        let (mut connection, _) = listener.accept().await?;
        tokio::spawn(async move { connection.write_all(b"hello\n").await });
    }
}
