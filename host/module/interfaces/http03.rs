//! The interfaces of wasi:http 0.3 that components import.

use super::row::{Interface, both, both_realloc, whole, whole_realloc};

/// The interfaces of wasi:http 0.3 that components may import.
pub const ALL: &[Interface] = &[HTTP_TYPES, HTTP_CLIENT];

/// Requests, responses and fields.
pub const HTTP_TYPES: Interface = Interface::of_03(
    "wasi:http/types",
    "wasi:http/types@0.3",
    &[
        both("[resource-drop]fields"),
        both("[constructor]fields"),
        both("[static]fields.from-list"),
        both_realloc("[method]fields.get"),
        both("[method]fields.has"),
        both("[method]fields.set"),
        both("[method]fields.delete"),
        both_realloc("[method]fields.get-and-delete"),
        both("[method]fields.append"),
        both_realloc("[method]fields.copy-all"),
        both("[method]fields.clone"),
        both("[resource-drop]request"),
        whole("[static]request.new"),
        both_realloc("[method]request.get-method"),
        whole("[method]request.set-method"),
        both_realloc("[method]request.get-path-with-query"),
        whole("[method]request.set-path-with-query"),
        both_realloc("[method]request.get-scheme"),
        whole("[method]request.set-scheme"),
        both_realloc("[method]request.get-authority"),
        whole("[method]request.set-authority"),
        both("[method]request.get-options"),
        both("[method]request.get-headers"),
        both("[static]request.consume-body"),
        both("[resource-drop]request-options"),
        whole("[constructor]request-options"),
        whole("[method]request-options.get-connect-timeout"),
        whole_realloc("[method]request-options.set-connect-timeout"),
        whole("[method]request-options.get-first-byte-timeout"),
        whole_realloc("[method]request-options.set-first-byte-timeout"),
        whole("[method]request-options.get-between-bytes-timeout"),
        whole_realloc("[method]request-options.set-between-bytes-timeout"),
        both("[method]request-options.clone"),
        both("[resource-drop]response"),
        both("[static]response.new"),
        both("[method]response.get-status-code"),
        both("[method]response.set-status-code"),
        both("[method]response.get-headers"),
        whole("[static]response.consume-body"),
    ],
);

/// Sends outbound requests.
pub const HTTP_CLIENT: Interface = Interface::of_03(
    "wasi:http/client",
    "wasi:http/client@0.3",
    &[whole_realloc("send").granted("--allow-outbound")],
);
