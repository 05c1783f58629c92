//! The real program in a process of its own: started on free ports, watched through its log lines, and
//! gone when the test is. Nothing here sleeps; every wait is for something that happens, with a bound.

// Every test program has its own copy of this and uses a part of it.
#![allow(dead_code)]

pub mod photos;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything here may take; generous, because build machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program, without settings of the surrounding environment.
pub fn voisin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voisin"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VOISIN_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command of the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    voisin().args(arguments).output().expect("the program runs")
}

/// What the program printed.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// A server in its own process; killed when the test ends, however it ends.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Says nothing; it is closed when the process has closed its log, which it does by ending.
    end: Receiver<()>,
}

impl Server {
    /// Starts a server on free ports with JSON logs.
    pub fn start(data: &Path, more: &[&str]) -> Server {
        Server::start_with(data, more, &[])
    }

    /// The same with settings from the environment, such as `("VOISIN__LIMITS__COLUMNS_MAX", "3")`.
    pub fn start_with(data: &Path, more: &[&str], settings: &[(&str, &str)]) -> Server {
        let mut child = voisin()
            .args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--log-format", "json", "--data"])
            .arg(data)
            .args(more)
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (line_sender, lines) = channel();
        let (end_sender, end) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Read on when nobody listens any more: a full pipe would stop the server.
                let _ = line_sender.send(line);
            }
            drop(end_sender);
        });
        Server { child, lines, end }
    }

    /// The fields of the next log line with this message.
    pub fn wait_for(&self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the line comes before the end");
            let mut line: Value = serde_json::from_str(&line).expect("every log line is JSON");
            if line["fields"]["message"] == message {
                return line["fields"].take();
            }
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: a minimal system has no such program.
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().expect("sh runs").success());
    }

    /// Waits for the process's end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = self.end.recv_timeout(PATIENCE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the server does not end");
        self.child.wait().expect("the child can be waited for")
    }

    /// Ends the process at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child runs");
        self.child.wait().expect("the child can be waited for");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
