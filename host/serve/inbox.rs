//! What other workers hand to one, be it connections or requests.

use std::pin::pin;

use tokio::sync::mpsc::UnboundedReceiver;

/// Takes what comes, until `stop` is done and nothing is left. Who comes later gets it back.
pub async fn receive<T>(
    mut inbox: UnboundedReceiver<T>,
    stop: impl Future<Output = ()>,
    take: impl Fn(T),
) {
    let mut stop = pin!(stop);
    loop {
        let came = tokio::select! {
            biased;
            () = &mut stop => break,
            came = inbox.recv() => came,
        };
        let Some(came) = came else { return };
        take(came);
    }
    inbox.close();
    while let Some(came) = inbox.recv().await {
        take(came);
    }
}
