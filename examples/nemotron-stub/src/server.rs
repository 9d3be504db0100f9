//! Binding the address, serving, and leaving in good order.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time;

use crate::load::Load;

/// Takes the address, or says what is in the way.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let explained = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is in use by another process; \
                 stop that one, or choose another address with NEMOTRON_ADDR"
            ),
            _ => format!("can't listen on {address} (NEMOTRON_ADDR): {error}"),
        };
        io::Error::new(error.kind(), explained)
    })
}

/// Where a service that listens on every address of the machine is found from inside.
pub(crate) fn from_inside(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// Resolves when the process is told to end. From this call on, and not only once it is awaited,
/// the signals no longer kill it.
pub(crate) fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Serves until the process is told to end; then the load stops, no connection is accepted any
/// more, and requests under way have [`DRAIN`] to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    load: Option<Load>,
    told_to_end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (draining, drain) = oneshot::channel();
    let stop = async move {
        told_to_end.await;
        tracing::info!("stopping");
        drop(load);
        let _ = draining.send(());
    };

    // A token is a small packet, and the kernel would keep it back until the one before it is
    // acknowledged. Where that can't be changed the tokens come in batches, and no worse.
    let listener = listener.tap_io(|connection| _ = connection.set_nodelay(true));
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stop);
    tokio::select! {
        result = server => result,
        () = overdue(drain) => {
            tracing::warn!("requests were still under way after {DRAIN:?}");
            Ok(())
        }
    }
}

/// How long a client may hold up our leaving.
const DRAIN: Duration = Duration::from_secs(5);

async fn overdue(drain: oneshot::Receiver<()>) {
    let _ = drain.await;
    time::sleep(DRAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_found_from_inside() {
        #[track_caller]
        fn check(listening: &str, expect: &str) {
            let listening = listening.parse().expect("an address");
            assert_eq!(from_inside(listening).to_string(), expect);
        }
        check("0.0.0.0:8027", "127.0.0.1:8027");
        check("[::]:8027", "[::1]:8027");
        check("127.0.0.2:8027", "127.0.0.2:8027");
    }
}
