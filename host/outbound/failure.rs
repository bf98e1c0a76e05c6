//! Why an outbound request has failed: a closed list, and how other crates' errors map to it.

use std::error::Error;
use std::io::{self, ErrorKind};

use tokio_rustls::rustls;

/// Why there is no response, or no complete one. Each variant is an error code of wasi:http.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboundFailure {
    /// The guest may not send requests to this destination.
    Denied,
    /// The URI is not an absolute http or https URI with a valid host and port.
    BadUri,
    /// The method is CONNECT or too long.
    BadMethod,
    /// The name was not resolved in time.
    NameTimeout,
    /// The name has no address.
    NoName,
    /// The name has only addresses that the guest may not connect to.
    Prohibited,
    /// There is no route to the address.
    Unroutable,
    /// No connection, for a reason that no other variant names.
    Unavailable,
    /// The server has refused the connection.
    Refused,
    /// The connection was not open in time.
    ConnectTimeout,
    /// The server has stopped reading the request.
    WriteTimeout,
    /// The server has not sent the response, or its next bytes, in time.
    ReadTimeout,
    /// The connection has ended before the response's head.
    Terminated,
    /// The connection has ended within the response's body.
    Incomplete,
    /// Too many requests or connections are in use, and too many requests wait.
    Full,
    /// The TLS handshake has failed.
    Tls,
    /// The server's certificate is not valid for its name.
    Certificate,
    /// The server has ended TLS with this alert.
    Alert(u8),
    /// The response's head is too large.
    HeadTooLarge,
    /// The server wants to switch to another protocol than HTTP.
    Upgrade,
    /// The server's answer is not valid HTTP.
    Protocol,
    /// The guest's request body has failed, or does not have the announced length.
    Body,
}

impl std::fmt::Display for OutboundFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why an exchange has ended without a response.
pub enum ExchangeError {
    /// The server has sent too many interim responses (1xx).
    TooManyInterim,
    /// There was no connection, or no response in time.
    Failed(OutboundFailure),
    /// hyper has failed on the connection.
    Http(hyper::Error),
}

impl ExchangeError {
    /// The failure that a guest sees.
    pub fn failure(&self) -> OutboundFailure {
        match self {
            ExchangeError::TooManyInterim => OutboundFailure::Protocol,
            ExchangeError::Failed(failure) => *failure,
            ExchangeError::Http(error) => OutboundFailure::of_exchange(error),
        }
    }

    /// Whether the server says that it has not processed the request (RFC 9113, 6.8 and 8.7).
    pub fn is_unprocessed(&self) -> bool {
        let ExchangeError::Http(error) = self else { return false };
        let first: &(dyn Error + 'static) = error;
        let mut causes = std::iter::successors(Some(first), |error| (*error).source());
        let error = causes.find_map(|error| error.downcast_ref::<h2::Error>());
        // h2 reports a GOAWAY only to requests after the last one that the server has taken.
        error.is_some_and(|it| {
            let is_refused = it.is_reset() && it.reason() == Some(h2::Reason::REFUSED_STREAM);
            it.is_remote() && (it.is_go_away() || is_refused)
        })
    }

    /// The innermost source of the error.
    fn root_cause(&self) -> Option<&(dyn Error + 'static)> {
        let ExchangeError::Http(error) = self else { return None };
        let mut cause: &(dyn Error + 'static) = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Some(cause)
    }
}

/// For the log.
impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.root_cause()) {
            (_, Some(cause)) => write!(f, "{cause}"),
            (ExchangeError::Failed(failure), _) => f.write_str(failure.why_unconnected()),
            _ => f.write_str("1xx without end"),
        }
    }
}

impl Error for OutboundFailure {}

impl OutboundFailure {
    /// The log text for a connection that could not be opened.
    fn why_unconnected(self) -> &'static str {
        match self {
            OutboundFailure::NameTimeout => "its name was not resolved in time",
            OutboundFailure::NoName => "its name has no address",
            OutboundFailure::Unroutable => "there is no route to it",
            OutboundFailure::Refused => "connection refused",
            OutboundFailure::ConnectTimeout => "no connection in time",
            OutboundFailure::Terminated => "the connection was closed",
            OutboundFailure::Certificate => {
                "its certificate is not one that this machine trusts, or not for this name; name \
                 the file of its authority in SSL_CERT_FILE"
            }
            OutboundFailure::Tls | OutboundFailure::Alert(_) => "no TLS can be spoken with it",
            _ => "no connection",
        }
    }

    /// Whether a second attempt to open a connection may succeed, because the first broke off.
    pub fn is_of_connection(self) -> bool {
        matches!(
            self,
            OutboundFailure::Terminated | OutboundFailure::Incomplete | OutboundFailure::Protocol
        )
    }

    /// The failure for an error of opening a TCP connection.
    pub fn of_connect(error: &io::Error) -> OutboundFailure {
        match error.kind() {
            ErrorKind::ConnectionRefused => OutboundFailure::Refused,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                OutboundFailure::Unroutable
            }
            ErrorKind::TimedOut => OutboundFailure::ConnectTimeout,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                OutboundFailure::Terminated
            }
            _ => OutboundFailure::Unavailable,
        }
    }

    /// The failure for an error of a TLS handshake.
    pub fn of_tls(error: &io::Error) -> OutboundFailure {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                OutboundFailure::Certificate
            }
            Some(rustls::Error::AlertReceived(alert)) => OutboundFailure::Alert(u8::from(*alert)),
            Some(_) => OutboundFailure::Tls,
            None => OutboundFailure::Terminated,
        }
    }

    /// The failure for an error before the response's head.
    pub fn of_exchange(error: &hyper::Error) -> OutboundFailure {
        match cause(error) {
            Some(failure) => failure,
            None if error.is_parse_too_large() => OutboundFailure::HeadTooLarge,
            None if error.is_parse() => OutboundFailure::Protocol,
            None if error.is_user() => OutboundFailure::Body,
            None => OutboundFailure::Terminated,
        }
    }

    /// The failure for an error within a response's body.
    pub fn of_body(error: &hyper::Error) -> OutboundFailure {
        match cause(error) {
            Some(failure) => failure,
            None if error.is_parse() => OutboundFailure::Protocol,
            None => OutboundFailure::Incomplete,
        }
    }
}

/// The failure that is among the sources of an error, if any.
fn cause(error: &hyper::Error) -> Option<OutboundFailure> {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(failure) = cause.downcast_ref::<OutboundFailure>() {
            return Some(*failure);
        }
        if let Some(rustls::Error::AlertReceived(alert)) = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref())
        {
            return Some(OutboundFailure::Alert(u8::from(*alert)));
        }
        cause = cause.source()?;
    }
}
