//! Why a guest's request came to nothing: a closed list, and what of other crates' errors is which.

use std::error::Error;
use std::io::{self, ErrorKind};

use tokio_rustls::rustls;

/// Why there is no response, or no more of one. Each is an error code of wasi:http.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboundFailure {
    /// The guest is not allowed to send requests there.
    Denied,
    BadUri,
    BadMethod,
    /// The name has not been resolved in time; it has no address; all that it has are prohibited.
    NameTimeout,
    NoName,
    Prohibited,
    Unroutable,
    /// No connection, for another reason than those that have a name.
    Unavailable,
    Refused,
    ConnectTimeout,
    /// The server takes no more of the request, or sends no more of the response.
    WriteTimeout,
    ReadTimeout,
    /// The connection has ended before the response; within it.
    Terminated,
    Incomplete,
    /// Too many requests are on their way, and too many wait.
    Full,
    Tls,
    Certificate,
    /// The server's word on why it does not want to speak TLS.
    Alert(u8),
    /// The response's head is too large.
    HeadTooLarge,
    /// The server wants to speak something else than HTTP.
    Upgrade,
    /// What came is not HTTP.
    Protocol,
    /// The request's own body has failed.
    Body,
}

impl std::fmt::Display for OutboundFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How an exchange ended without a response.
pub enum ExchangeError {
    TooManyInterim,
    /// There was no connection, or there was for too long no response.
    Failed(OutboundFailure),
    Http(hyper::Error),
}

impl ExchangeError {
    pub fn failure(&self) -> OutboundFailure {
        match self {
            ExchangeError::TooManyInterim => OutboundFailure::Protocol,
            ExchangeError::Failed(failure) => *failure,
            ExchangeError::Http(error) => OutboundFailure::of_exchange(error),
        }
    }

    /// Whether the server says that it has done nothing of the request (RFC 9113, 6.8 and 8.7).
    pub fn is_unprocessed(&self) -> bool {
        let ExchangeError::Http(error) = self else { return false };
        let first: &(dyn Error + 'static) = error;
        let mut causes = std::iter::successors(Some(first), |error| (*error).source());
        let error = causes.find_map(|error| error.downcast_ref::<h2::Error>());
        // The first is told only to requests behind those that the server says it has taken.
        error.is_some_and(|it| {
            let is_refused = it.is_reset() && it.reason() == Some(h2::Reason::REFUSED_STREAM);
            it.is_remote() && (it.is_go_away() || is_refused)
        })
    }

    /// The error that is behind all the others.
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
    /// What whoever runs the host reads of a connection that could not be opened.
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

    /// Whether another connection may do better, of one that could not be opened.
    pub fn is_of_connection(self) -> bool {
        matches!(
            self,
            OutboundFailure::Terminated | OutboundFailure::Incomplete | OutboundFailure::Protocol
        )
    }

    /// Why a connection could not be opened.
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

    /// Why there is no TLS on a connection.
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

    /// Why a request was not answered.
    pub fn of_exchange(error: &hyper::Error) -> OutboundFailure {
        match cause(error) {
            Some(failure) => failure,
            None if error.is_parse_too_large() => OutboundFailure::HeadTooLarge,
            None if error.is_parse() => OutboundFailure::Protocol,
            None if error.is_user() => OutboundFailure::Body,
            None => OutboundFailure::Terminated,
        }
    }

    /// Why a response's body broke off.
    pub fn of_body(error: &hyper::Error) -> OutboundFailure {
        match cause(error) {
            Some(failure) => failure,
            None if error.is_parse() => OutboundFailure::Protocol,
            None => OutboundFailure::Incomplete,
        }
    }
}

/// What is behind an error, where that says it.
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
