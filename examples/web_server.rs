//! A web server that binds port 80 as root, serves, and becomes `nobody` while it serves.
//!
//! It shows that axum on tokio's multi-threaded runtime, with blocking threads alive, loses its privileges in all
//! threads at once, and that no request fails meanwhile. Its page shows the kernel's state of each thread, before the
//! drop and now. Run it as root, open <http://localhost/>, and press the button:
//!
//! ```sh
//! cargo build -p examples && sudo target/debug/web_server
//! ```
//!
//! An argument is another address than `0.0.0.0:80`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use nix::unistd::{Uid, User};
use privileges::Privileges;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Server {
    log: Sender<String>,
    /// The threads before privileges were dropped, and a description of the drop.
    dropped: OnceLock<(BTreeMap<i32, Thread>, String)>,
    dropping: Mutex<()>,
}

fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:80".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .thread_name("worker")
        .enable_all()
        .build()?;
    runtime.block_on(serve(&address))
}

async fn serve(address: &str) -> Result<(), Failure> {
    // Only root may bind a port below 1024.
    let listener = TcpListener::bind(address).await?;
    println!("serving on {}", listener.local_addr()?);
    let (log, lines) = channel();
    // Threads of the runtime's blocking pool, which sleep in the kernel while privileges are dropped.
    blocking("log", move || {
        lines.iter().for_each(|line: String| println!("{line}"));
    });
    for _ in 0..3 {
        blocking("housekeeping", || {
            loop {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
    let server = Server { log, dropped: OnceLock::new(), dropping: Mutex::default() };
    let routes = Router::new()
        .route("/", get(page))
        .route("/hello", get(async || "hello\n"))
        .route("/drop", post(drop_privileges))
        .with_state(Arc::new(server));
    axum::serve(listener, routes).await?;
    Ok(())
}

/// Runs a thread that has a name of its own.
fn blocking(name: &'static str, body: impl FnOnce() + Send + 'static) {
    spawn_blocking(move || {
        let _ = std::fs::write("/proc/thread-self/comm", name);
        body();
    });
}

async fn drop_privileges(
    State(server): State<Arc<Server>>,
) -> Result<Redirect, (StatusCode, String)> {
    let failed = |error: Failure| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    let _alone = server.dropping.lock().await;
    if server.dropped.get().is_none() {
        // The drop reads files, and the stop takes some milliseconds, so a thread that serves does not do it.
        let done = spawn_blocking(become_nobody).await.map_err(|error| failed(error.into()))?;
        let (before, what) = done.map_err(failed)?;
        let _ = server.log.send(what.clone());
        let _ = server.dropped.set((before, what));
    }
    Ok(Redirect::to("/"))
}

fn become_nobody() -> Result<(BTreeMap<i32, Thread>, String), Failure> {
    let before = threads()?;
    // An error of either call means that nothing has changed, and the server goes on as root.
    let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
    let applied = plan.apply()?;
    let what = format!("{} threads were changed in one stop, and verified", applied.threads);
    Ok((before, what))
}

/// The kernel's state of a thread.
#[derive(Clone, PartialEq, Eq)]
struct Thread {
    name: String,
    user: u32,
    capabilities: u64,
    no_new_privs: bool,
}

fn threads() -> std::io::Result<BTreeMap<i32, Thread>> {
    let of_one = |status: String| {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim)
        };
        Some(Thread {
            name: field("Name")?.to_owned(),
            // The effective id is the second of four.
            user: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
            capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
            no_new_privs: field("NoNewPrivs")? == "1",
        })
    };
    let tasks = std::fs::read_dir("/proc/self/task")?.flatten();
    Ok(tasks
        .filter_map(|task| {
            let tid = task.file_name().to_str()?.parse().ok()?;
            // A thread that has ended meanwhile is left out.
            Some((tid, of_one(std::fs::read_to_string(task.path().join("status")).ok()?)?))
        })
        .collect())
}

async fn page(State(server): State<Arc<Server>>) -> Result<Html<String>, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let now = spawn_blocking(threads).await.map_err(failed)?;
    let now = now.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Html(show(&now, server.dropped.get())))
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="2">
<title>Threads</title>
<style>
:root { color-scheme: light dark; --line: #8885; --bad: #b3261e; --good: #1b6e3c }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7bd69a } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem; max-width: 62rem }
h1 { font-size: 1.35rem; margin: 0 0 .3rem }
div { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--line) }
th[colspan] { text-align: center }
td:nth-child(3), td:nth-child(6), th[colspan] { border-left: 1px solid var(--line) }
.root { color: var(--bad); font-weight: 600 }
.nobody { color: var(--good); font-weight: 600 }
button { font: inherit; padding: .3rem .9rem }
</style>
"#;

fn show(now: &BTreeMap<i32, Thread>, dropped: Option<&(BTreeMap<i32, Thread>, String)>) -> String {
    let root = now.values().filter(|thread| thread.user == 0).count();
    let mut page = format!("{HEAD}<h1>{root} of {} threads are root</h1>\n", now.len());
    page += &match dropped {
        Some((_, what)) => format!("<p>{what}.</p>\n"),
        None => "<form method=post action=/drop><p>Each thread has privileges of its own. \
                 <button>Become nobody</button></p></form>\n"
            .to_owned(),
    };
    page += "<div><table><tr><th rowspan=2>thread<th rowspan=2>name<th colspan=3>before\
             <th colspan=3>now\n<tr>";
    page += &"<th>user<th>capabilities<th>no_new_privs".repeat(2);
    let empty = BTreeMap::new();
    let before = dropped.map_or(&empty, |(before, _)| before);
    for (tid, thread) in now {
        let name = thread.name.replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(page, "\n<tr><td>{tid}<td>{name}");
        page += &before.get(tid).map_or("<td><td><td>".to_owned(), cells);
        page += &cells(thread);
    }
    page += "\n</table></div>\n";
    page
}

fn cells(thread: &Thread) -> String {
    let class = if thread.user == 0 { "root" } else { "nobody" };
    let user = User::from_uid(Uid::from_raw(thread.user)).ok().flatten();
    let user = user.map_or(thread.user.to_string(), |user| user.name);
    let capabilities = match thread.capabilities.count_ones() {
        0 => "none".to_owned(),
        count => count.to_string(),
    };
    let no_new_privs = if thread.no_new_privs { "yes" } else { "no" };
    format!("<td class={class}>{user}<td class={class}>{capabilities}<td>{no_new_privs}")
}
