//! The program under test, started on a folder of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{BenchError, Result};
use crate::memory::Memory;

/// A server of our own; it ends with this value.
pub(super) struct Server {
    /// Where it serves gRPC.
    pub address: String,
    child: Child,
    data: tempfile::TempDir,
    durability: String,
}

fn failed(what: &str, cause: impl std::fmt::Display) -> BenchError {
    BenchError(format!("{what}: {cause}"))
}

impl Server {
    /// Starts this very program on an empty folder and waits until it is ready.
    pub fn start(durability: &str) -> Result<Server> {
        let data = tempfile::tempdir().map_err(|e| failed("no temporary folder", e))?;
        let (child, address) = spawn(data.path(), durability)?;
        Ok(Server { address, child, data, durability: durability.to_owned() })
    }

    /// Ends the process without warning and starts another on the same folder.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.stop();
        (self.child, self.address) = spawn(self.data.path(), &self.durability)?;
        Ok(())
    }

    /// Resident memory now, where the system tells.
    pub fn memory(&self) -> Option<Memory> {
        Memory::of(Some(self.child.id()))
    }

    /// Bytes of the data folder's files.
    pub fn disk_bytes(&self) -> Option<u64> {
        fn bytes(folder: &Path) -> std::io::Result<u64> {
            let mut total = 0;
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                total += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
            }
            Ok(total)
        }
        bytes(self.data.path()).ok()
    }

    fn stop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(data: &Path, durability: &str) -> Result<(Child, String)> {
    let program = std::env::current_exe().map_err(|e| failed("where this program is", e))?;
    let mut child = Command::new(&program)
        .args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "json"])
        .args(["--durability", durability, "--data"])
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&program.display().to_string(), e))?;
    let lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
    let mut said = Vec::new();
    if let Some(mut lines) = lines {
        while let Some(Ok(line)) = lines.next() {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if value["fields"]["message"] == "ready"
                && let Some(address) = value["fields"]["grpc"].as_str()
            {
                let address = address.to_owned();
                // Read on, so that the server never waits for its own log.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((child, address));
            }
            said.push(line);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(BenchError(format!("the server ended before it was ready: {}", said.join("; "))))
}
