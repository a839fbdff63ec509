//! A server whose threads receive from port 7 before and after it drops root, with the crate libpsx alone.

use std::net::UdpSocket;

use libpsx::process::{Gid, Uid, set_all_gids, set_all_uids, set_no_new_privs, setgroups};
use libpsx::{PartialFailureAction, Transaction};

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = UdpSocket::bind("0.0.0.0:7")?;
    let echo = |socket: UdpSocket| -> std::io::Result<()> {
        let mut data = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut data)?;
            socket.send_to(data.get(..length).unwrap_or_default(), from)?;
        }
    };
    for _ in 0..4 {
        let socket = socket.try_clone()?;
        std::thread::spawn(move || echo(socket));
    }
    Transaction::new()
        .with(setgroups(&[]))
        .with(set_all_gids(Gid::new(65534)?))
        .with(set_all_uids(Uid::new(65534)?))
        .with(set_no_new_privs())
        .on_partial_failure(PartialFailureAction::Kill)
        .execute()?;
    println!("nobody from here on");
    Ok(echo(socket)?)
}
