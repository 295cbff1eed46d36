//! A TCP proxy before Postgres that can cut the line at the worst moment.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Passes bytes on; while it is armed, it swallows the replies to statements that hold a text, and cuts
/// the connection instead: the server has done the work, and nobody hears of it.
pub struct ReplyEater {
    port: u16,
    armed: Arc<AtomicUsize>,
    eaten: Arc<AtomicUsize>,
}

impl ReplyEater {
    /// Stands before `target` (`host:port`) and watches for statements whose parameters hold `marker`.
    pub fn new(target: &str, marker: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { port: listener.local_addr().unwrap().port(), armed: Arc::default(), eaten: Arc::default() };
        let (target, armed, eaten) = (target.to_owned(), Arc::clone(&this.armed), Arc::clone(&this.eaten));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&target).unwrap();
                serve(client, server, marker.as_bytes(), &armed, &eaten);
            }
        });
        this
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Eats the replies to the next `count` matching statements.
    pub fn arm(&self, count: usize) {
        self.armed.store(count, Ordering::SeqCst);
    }

    pub fn eaten(&self) -> usize {
        self.eaten.load(Ordering::SeqCst)
    }
}

fn serve(
    client: TcpStream,
    server: TcpStream,
    marker: &'static [u8],
    armed: &Arc<AtomicUsize>,
    eaten: &Arc<AtomicUsize>,
) {
    let cut = Arc::new(AtomicUsize::new(0));
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (armed, upstream_cut) = (Arc::clone(armed), Arc::clone(&cut));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            let matches = buffer[..read].windows(marker.len()).any(|window| window == marker);
            let take = |count: usize| count.checked_sub(1);
            if matches && armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                upstream_cut.store(1, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client, eaten) = (server, client, Arc::clone(eaten));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut buffer) {
            if cut.load(Ordering::SeqCst) == 1 {
                eaten.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
}
