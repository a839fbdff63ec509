//! Puts a server (`bin/server.rs`) under load by wrk(1), on the loopback interface. It measures how long requests take
//! while calls are made, and whether a request is lost when the server drops its privileges.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engines::{BESIDE_RECENT, Built, Ended, watch};
use crate::plan::Traffic;
use crate::results::Served;

/// The engine's name, and whether it runs with the libraries of Debian sid.
const NO_ENGINE: (&str, bool) = ("nothing", false);
const BASELINE: (&str, bool) = ("baseline", false);
const CALLERS: [(&str, bool); 5] =
    [NO_ENGINE, ("ours", false), BASELINE, ("glibc", false), ("libpsx", true)];
const DROPPERS: [(&str, bool); 4] = [("ours", false), BASELINE, ("libpsx", true), ("mixed", true)];

struct Server {
    child: Child,
    say: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(engine: &str, beside_recent: bool, idle: usize) -> Result<Self> {
        let path = std::env::current_exe()?.with_file_name("server");
        let mut command = if beside_recent {
            let mut beside = Command::new(BESIDE_RECENT);
            beside.arg(&path);
            beside
        } else {
            Command::new(&path)
        };
        command.args([engine, &idle.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| {
            format!("{}: build it by cargo build --release -p bench", path.display())
        })?;
        let say = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut server = Self { child, say, answers, port: 0 };
        server.port = server.answer()?.parse().context("a server without a port")?;
        Ok(server)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn say(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.say, "{what}")?)
    }

    /// Returns the user id of the thread that serves a request now.
    fn identity(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().last().unwrap_or_default().to_owned())
    }

    /// Counts the threads that /proc shows with another user id.
    fn others_than(&self, uid: u32) -> Result<usize> {
        let mut others = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            let ids = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
            others += usize::from(!status.contains(&ids));
        }
        Ok(others)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(port: u16, lasts: Duration, served: &mut Served) -> Result<()> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c16", "--latency", &format!("-d{}s", lasts.as_secs())]);
    wrk.arg(format!("http://127.0.0.1:{port}/"));
    let text = match watch(&mut wrk, lasts + Duration::from_secs(30))? {
        Ended::Well(text) => text,
        other => anyhow::bail!("wrk: {other:?}"),
    };
    let line = |word: &str| text.lines().find(|line| line.trim_start().starts_with(word));
    let percentile = |word| {
        let time = line(word)?.split_whitespace().nth(1)?;
        microseconds(time)
    };
    served.p50.push(percentile("50%").context("wrk printed no median")?);
    served.p99.push(percentile("99%").context("wrk printed no 99th percentile")?);
    let total =
        text.lines().find(|line| line.contains(" requests in ")).context("wrk printed no total")?;
    let total = total.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    served.requests += total.context("wrk printed no number of requests")?;
    // wrk prints "Socket errors: connect 0, read 0, write 0, timeout 0" only if there were errors.
    let errors = line("Socket errors:").unwrap_or_default();
    for count in errors.trim_start().trim_start_matches("Socket errors:").split(',') {
        let mut words = count.split_whitespace();
        let (kind, count) =
            (words.next(), words.next().and_then(|count| count.parse::<u64>().ok()));
        match kind {
            Some("timeout") => served.late += count.context("wrk: timeouts")?,
            Some(_) => served.errors += count.context("wrk: errors")?,
            None => {}
        }
    }
    if let Some(line) = line("Non-2xx") {
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        served.errors += count.context("wrk: answers other than 2xx")?;
    }
    Ok(())
}

fn microseconds(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor) as u64)
}

/// Runs one round. The server makes its calls while the load lasts, and prints on request how long they took.
fn once(served: &mut Served, beside_recent: bool, plan: &Traffic) -> Result<()> {
    let mut server = Server::start(served.engine, beside_recent, plan.idle)?;
    server.say(served.what)?;
    load(server.port, plan.lasts, served)?;
    server.say("over")?;
    let answer = server.answer()?;
    let mut parts = answer.split('|').map(|part| {
        part.split_whitespace().filter_map(|number| number.parse::<u64>().ok()).collect::<Vec<_>>()
    });
    let mut numbers = parts.next().unwrap_or_default().into_iter();
    served.failed += numbers.next().context("no answer")?;
    served.ns.extend(numbers);
    served.delays.extend(parts.next().context("no delays")?);
    served.threads.extend(parts.next().context("the server printed no delays of threads")?);
    if served.what == "drop" {
        let answered = server.identity()?;
        let kept = server.others_than(65534)?;
        served.incomplete += u64::from(answered != "uid 65534" || kept > 0);
    }
    Ok(())
}

pub(crate) fn all(plan: &Traffic, built: &Built) -> Result<Vec<Served>> {
    let root = nix::unistd::geteuid().is_root();
    let calls = CALLERS.map(|engine| (engine, "calls"));
    let drops = DROPPERS.map(|engine| (engine, "drop"));
    let no_wrk = watch(Command::new("wrk").arg("-v"), Duration::from_secs(10)).is_err();
    let mut all: Vec<(Served, bool)> = calls
        .into_iter()
        .chain(drops)
        .filter(|(engine, _)| *engine != BASELINE || built.contains_key("baseline-server"))
        .map(|((engine, beside_recent), what)| {
            let missing = beside_recent.then(|| built.get("libpsx")).flatten();
            let without = if no_wrk {
                Some("SKIPPED: wrk(1) is not installed (Debian: apt-get install wrk)".to_owned())
            } else if what == "drop" && !root {
                Some("SKIPPED: only root has privileges to drop".to_owned())
            } else if let Some(Err(why)) = missing {
                Some(format!("SKIPPED: {why}"))
            } else {
                None
            };
            (Served { engine, what, without, ..Served::default() }, beside_recent)
        })
        .collect();
    for round in 0..plan.rounds {
        eprintln!("traffic, round {round} ...");
        for (served, beside_recent) in all.iter_mut().filter(|(served, _)| served.without.is_none())
        {
            if let Err(error) = once(served, *beside_recent, plan) {
                served.failed += 1;
                served.without = Some(format!("failed: {error:#}"));
            }
        }
    }
    Ok(all.into_iter().map(|(served, _)| served).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_units_of_wrk() {
        let parsed = ["632.00us", "1.50ms", "2.00s", "3", "4parsecs"].map(microseconds);
        assert_eq!(parsed, [Some(632), Some(1500), Some(2_000_000), None, None]);
    }
}
