//! A web server that binds port 80 as root, and serves as another user.

use axum::{Router, routing::get};
use privileges::Privileges;
use tokio::net::TcpListener;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Only root may bind a port below 1024.
    let listener = TcpListener::bind("0.0.0.0:80").await?;
    let plan = Privileges::new().user("nobody").no_new_privs().plan()?; // an error: nothing has changed
    println!("{plan}");
    plan.apply()?; // from here on every thread of the runtime is nobody
    axum::serve(listener, Router::new().route("/", get(async || "hello\n"))).await?;
    Ok(())
}
