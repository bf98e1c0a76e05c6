//! Receives what other workers hand over: connections and requests.

use std::pin::pin;

use tokio::sync::mpsc::UnboundedReceiver;

/// Passes everything from `inbox` to `take`. Once `stop` is ready, closes the inbox and takes what
/// it still holds; later senders get their item back.
pub async fn receive<T>(
    mut inbox: UnboundedReceiver<T>,
    stop: impl Future<Output = ()>,
    take: impl Fn(T),
) {
    let mut stop = pin!(stop);
    loop {
        let item = tokio::select! {
            biased;
            () = &mut stop => break,
            item = inbox.recv() => item,
        };
        let Some(item) = item else { return };
        take(item);
    }
    inbox.close();
    while let Some(item) = inbox.recv().await {
        take(item);
    }
}
