//! `voisin health`: one HTTP request with the standard library, so that a container needs no curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use super::HealthArgs;

/// A server that is ready answers at once; one that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);

/// 0 when the server says it is ready, else 1 with the reason.
pub(super) fn run(args: &HealthArgs) -> ExitCode {
    match status_line(&args.http) {
        Ok(line) if line.split(' ').nth(1) == Some("200") => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Ok(line) => {
            eprintln!("voisin: {} is not ready: {line}", args.http);
            ExitCode::FAILURE
        }
        Err(cause) => {
            // A read that ran into its time limit calls itself "temporarily unavailable".
            let cause = match cause.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    format!("nothing came within {} s", TIMEOUT.as_secs())
                }
                _ => cause.to_string(),
            };
            eprintln!("voisin: {} does not answer: {cause}", args.http);
            ExitCode::FAILURE
        }
    }
}

/// The first line of the answer to `GET /readyz`.
fn status_line(http: &str) -> io::Result<String> {
    let mut stream = connect(http)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4_096).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Connects to the first address of the name that takes the connection.
fn connect(http: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("the host name has no address");
    for address in http.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(cause) => failure = cause,
        }
    }
    Err(failure)
}
