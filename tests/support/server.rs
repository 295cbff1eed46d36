//! Servers of a test's own, started with `config/local/server`: they end with the value, and with the tests however
//! those end.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use tempfile::TempDir;

use super::{eventually, pipeline::write, repository};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder that a server's own user may enter.
pub fn server_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A running server; killed with the value.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server; it is ready when its log holds `ready`, or, without that, when its port answers.
    pub fn start(kind: &str, folder: &Path, port: u16, ready: Option<&str>, environment: &[(&str, String)]) -> Self {
        let log = write(folder, "log", "");
        let mut command = Command::new(repository("config/local/server"));
        command.arg(kind).arg(folder).arg(port.to_string());
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        let output = File::options().append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut server = Self { child: spawn_for_good(command), log };
        eventually(&format!("{kind} has started; its log is in {}", server.log.display()), || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{kind} did not start:\n{}", server.log());
            match ready {
                Some(ready) => server.log().contains(ready).then_some(()),
                None => TcpStream::connect(("127.0.0.1", port)).ok().map(drop),
            }
        });
        server
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process from a thread that never ends: the kernel ends the process with the thread that started it.
fn spawn_for_good(mut command: Command) -> Child {
    let (started, child) = mpsc::channel();
    std::thread::spawn(move || {
        started.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    child.recv().unwrap()
}
