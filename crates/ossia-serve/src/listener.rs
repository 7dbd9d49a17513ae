//! The open port: connections, TLS, and how the server goes down. HTTP/1.1 only: it has no streams to reset or frames to
//! flood with, and every client speaks it.

mod patience;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

pub use self::patience::Patience;
use self::patience::Watch;

/// Headers of a request, all together, and how many.
const MOST_HEADER_BYTES: usize = 64 << 10;
const MOST_HEADERS: usize = 100;
/// Connections at a time, where the system allows so many open files. More wait in the system's queue.
const MOST_CONNECTIONS: usize = 10_000;
/// Files besides connections: the model, the database, logs.
const OTHER_FILES: usize = 256;
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `stop` becomes true, then lets those that are busy finish their request. Returns when none is
/// left.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<TlsAcceptor>, stop: watch::Receiver<bool>) {
    serve_with(listener, router, tls, Patience::default(), stop).await;
}

/// [`serve`] with other deadlines.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    patience: Patience,
    stop: watch::Receiver<bool>,
) {
    let most = most_connections();
    let slots = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stopped(stop.clone()) => break,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            // What goes wrong on a connection is between it and the client; requests are logged where they are handled.
            let _ = connection(stream, peer, router, tls, patience, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    // All slots are free when the last connection has ended. The semaphore is never closed.
    let _ = slots.acquire_many(most as u32).await;
}

/// How many connections there may be. Few files may be open at first on most systems, and more for the asking: without
/// that some hundred idle connections would close the door to everybody.
fn most_connections() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let (limit, wanted) = (getrlimit(Resource::Nofile), (MOST_CONNECTIONS + OTHER_FILES) as u64);
        let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
        let current = limit.current.unwrap_or(u64::MAX);
        let raised = current < most && setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }).is_ok();
        let files = usize::try_from(if raised { most } else { current }).unwrap_or(usize::MAX);
        let most = files.saturating_sub(OTHER_FILES).clamp(16, MOST_CONNECTIONS);
        if most < MOST_CONNECTIONS {
            tracing::warn!(most, "the system's limit of open files allows few connections; raise it (ulimit -n)");
        }
        most
    }
    #[cfg(not(unix))]
    MOST_CONNECTIONS
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    patience: Patience,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    // Tokens are small and must not wait for each other.
    stream.set_nodelay(true)?;
    match tls {
        None => http(stream, peer, router, patience, stop).await,
        Some(tls) => {
            let stream = tokio::time::timeout(patience.greeting, tls.accept(stream)).await??;
            http(stream, peer, router, patience, stop).await
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let watch = Watch::new(patience);
    let service = WithPeer { router, peer, watch: watch.clone() };
    let mut builder = http1::Builder::new();
    // Ours tell a head that does not come from a connection that rests.
    builder.header_read_timeout(None).max_headers(MOST_HEADERS).max_header_size(MOST_HEADER_BYTES).half_close(false);
    let stream = TokioIo::new(watch.stream(stream));
    let mut serving = pin!(builder.serve_connection(stream, TowerToHyperService::new(service)));
    let (mut stopping, mut is_stopping) = (pin!(stopped(stop)), false);
    let mut sleep = Box::pin(tokio::time::sleep(patience.idle));
    poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            serving.as_mut().graceful_shutdown();
        }
        match serving.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(io::Error::other)),
            Poll::Pending => watch.poll_late(&mut sleep, cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    })
    .await
}

/// Waits until the server is to stop; also where nobody is left who could say so.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The router, told whom it speaks with.
#[derive(Clone)]
struct WithPeer {
    router: Router,
    peer: SocketAddr,
    watch: Watch,
}

impl Service<hyper::Request<Incoming>> for WithPeer {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<hyper::Request<Incoming>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.watch.begin();
        request.extensions_mut().insert(ConnectInfo(self.peer));
        Answering { answer: self.router.call(request), watch: self.watch.clone() }
    }
}

/// An answer on its way, whose body will tell of its end.
struct Answering {
    answer: <Router as Service<hyper::Request<Incoming>>>::Future,
    watch: Watch,
}

impl Future for Answering {
    type Output = Result<axum::response::Response, std::convert::Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let answer = std::pin::Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.map(|answer| answer.map(|body| self.watch.body(body))))
    }
}
