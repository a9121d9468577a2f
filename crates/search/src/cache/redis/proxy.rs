//! A way to a server, for tests, on which connections can be held up.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Lets connections through to a server, as many as it has leave for, in their order.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) leave: Arc<Semaphore>,
    /// So many of the first connections are silent, and stay open.
    silent: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (leave, (silent, silence)) = (Arc::new(Semaphore::new(0)), watch::channel(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&leave), silence));
        Self { port, leave, silent, _tasks: tasks }
    }

    pub(crate) fn silence(&self, first: usize) {
        self.silent.send_replace(first);
    }
}

async fn accept(
    listener: TcpListener,
    server: u16,
    leave: Arc<Semaphore>,
    silence: watch::Receiver<usize>,
) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((mut client, _)) = listener.accept().await else { return };
        let (leave, mut silence) = (Arc::clone(&leave), silence.clone());
        connections.spawn(async move {
            leave.acquire().await.expect("open").forget();
            let mut server =
                TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.expect("it is up");
            let until_silent = async {
                // Fails when the test is over.
                silence.wait_for(|silent| number < *silent).await.map(drop).ok();
            };
            tokio::select! {
                // Fails when either side breaks off.
                _ = copy_bidirectional(&mut client, &mut server) => {}
                () = until_silent => std::future::pending().await,
            }
        });
    }
}
