//! A network between two nodes that fails on demand: delays, cuts, swallows, or breaks off after exactly so many bytes.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Which way bytes flow, seen from the node that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the dialling node to the listening one.
    Out,
    /// Back.
    Back,
}

/// What the network does now.
#[derive(Clone, Debug, Default)]
struct Weather {
    delay: Duration,
    block_out: bool,
    block_back: bool,
    refuse: bool,
    drop_after: Option<(Way, u64)>,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
    passed: [AtomicU64; 2],
    accepted: AtomicU64,
    dropped: AtomicU64,
    stop: AtomicBool,
}

/// A TCP proxy on a port of its own; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Forwards to `target`, which need not listen yet.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                accepting.accepted.fetch_add(1, Ordering::SeqCst);
                if !accepting.weather.lock().unwrap().refuse {
                    join(&accepting, client, target);
                }
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every piece back for so long.
    pub fn delay(&self, time: Duration) {
        self.set(|weather| weather.delay = time);
    }

    /// Swallows nothing and passes nothing, one way; connections stay.
    pub fn block(&self, way: Way) {
        self.set(|weather| match way {
            Way::Out => weather.block_out = true,
            Way::Back => weather.block_back = true,
        });
    }

    /// Closes what comes, from now on.
    pub fn refuse(&self) {
        self.set(|weather| weather.refuse = true);
    }

    /// Fine weather again.
    pub fn heal(&self) {
        self.set(|weather| *weather = Weather::default());
    }

    /// Breaks the connection off after exactly `bytes` more bytes one way; once.
    pub fn drop_after(&self, way: Way, bytes: u64) {
        self.set(|weather| weather.drop_after = Some((way, bytes)));
    }

    /// Breaks off every connection now.
    pub fn cut(&self) {
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many bytes went one way.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }

    /// How many connections came.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How often [`Proxy::drop_after`] came true.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::SeqCst)
    }

    fn set(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.shared.weather.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut();
        self.heal();
        let _ = TcpStream::connect(self.address);
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    shared.connections.lock().unwrap().extend([clone(&client), clone(&server)]);
    for (way, from, to) in [(Way::Out, clone(&client), clone(&server)), (Way::Back, server, client)] {
        let shared = shared.clone();
        std::thread::spawn(move || pump(&shared, way, from, to));
    }
}

fn pump(shared: &Shared, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let (pass, last) = admit(shared, way, size as u64);
        let pass = usize::try_from(pass).unwrap_or(size);
        if to.write_all(&buffer[..pass]).is_err() {
            break;
        }
        shared.passed[way as usize].fetch_add(pass as u64, Ordering::SeqCst);
        if last {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Waits for the weather to let a piece pass; how much of it does, and whether the connection breaks then.
fn admit(shared: &Shared, way: Way, size: u64) -> (u64, bool) {
    let mut weather = shared.weather.lock().unwrap();
    if !weather.delay.is_zero() {
        let delay = weather.delay;
        weather = shared.changed.wait_timeout_while(weather, delay, |weather| weather.delay == delay).unwrap().0;
    }
    let blocked = |weather: &Weather| if way == Way::Out { weather.block_out } else { weather.block_back };
    while blocked(&weather) && !shared.stop.load(Ordering::SeqCst) {
        weather = shared.changed.wait_timeout(weather, Duration::from_millis(200)).unwrap().0;
    }
    match weather.drop_after {
        Some((the_way, left)) if the_way == way && left <= size => {
            weather.drop_after = None;
            shared.dropped.fetch_add(1, Ordering::SeqCst);
            (left, true)
        }
        Some((the_way, left)) if the_way == way => {
            weather.drop_after = Some((way, left - size));
            (size, false)
        }
        _ => (size, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream);
                });
            }
        });
        address
    }

    #[test]
    fn the_proxy_passes_blocks_heals_and_breaks_off_at_the_byte() {
        let proxy = Proxy::start(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");

        proxy.block(Way::Back);
        stream.write_all(b"again").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read_exact(&mut answer).is_err());
        proxy.heal();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"again");

        proxy.drop_after(Way::Back, 3);
        stream.write_all(b"third").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"thi");
        assert_eq!((proxy.passed(Way::Back), proxy.dropped(), proxy.accepted()), (13, 1, 1));
    }
}
