//! Files and sockets of WASI 0.3. There are none behind them, so that no guest has them in its
//! flat form.

use super::row::{Interface, whole, whole_room};

pub const ALL: &[Interface] =
    &[FILESYSTEM_TYPES, FILESYSTEM_PREOPENS, SOCKETS_TYPES, SOCKETS_IP_NAME_LOOKUP];

pub const FILESYSTEM_TYPES: Interface = Interface::of_03(
    "wasi:filesystem/types",
    "wasi:filesystem/types@0.3",
    &[
        whole("[resource-drop]descriptor"),
        whole("[method]descriptor.read-via-stream"),
        whole("[method]descriptor.write-via-stream"),
        whole("[method]descriptor.append-via-stream"),
        whole_room("[method]descriptor.advise"),
        whole_room("[method]descriptor.sync-data"),
        whole_room("[method]descriptor.get-flags"),
        whole_room("[method]descriptor.get-type"),
        whole_room("[method]descriptor.set-size"),
        whole_room("[method]descriptor.set-times"),
        whole("[method]descriptor.read-directory"),
        whole_room("[method]descriptor.sync"),
        whole_room("[method]descriptor.create-directory-at"),
        whole_room("[method]descriptor.stat"),
        whole_room("[method]descriptor.stat-at"),
        whole_room("[method]descriptor.set-times-at"),
        whole_room("[method]descriptor.link-at"),
        whole_room("[method]descriptor.open-at"),
        whole_room("[method]descriptor.readlink-at"),
        whole_room("[method]descriptor.remove-directory-at"),
        whole_room("[method]descriptor.rename-at"),
        whole_room("[method]descriptor.symlink-at"),
        whole_room("[method]descriptor.unlink-file-at"),
        whole("[method]descriptor.is-same-object"),
        whole_room("[method]descriptor.metadata-hash"),
        whole_room("[method]descriptor.metadata-hash-at"),
    ],
);

pub const FILESYSTEM_PREOPENS: Interface = Interface::of_03(
    "wasi:filesystem/preopens",
    "wasi:filesystem/preopens@0.3",
    &[whole_room("get-directories")],
);

pub const SOCKETS_TYPES: Interface = Interface::of_03(
    "wasi:sockets/types",
    "wasi:sockets/types@0.3",
    &[
        whole("[resource-drop]tcp-socket"),
        whole_room("[static]tcp-socket.create"),
        whole_room("[method]tcp-socket.bind"),
        whole_room("[method]tcp-socket.connect"),
        whole_room("[method]tcp-socket.listen"),
        whole("[method]tcp-socket.send"),
        whole("[method]tcp-socket.receive"),
        whole_room("[method]tcp-socket.get-local-address"),
        whole_room("[method]tcp-socket.get-remote-address"),
        whole("[method]tcp-socket.get-is-listening"),
        whole("[method]tcp-socket.get-address-family"),
        whole_room("[method]tcp-socket.set-listen-backlog-size"),
        whole_room("[method]tcp-socket.get-keep-alive-enabled"),
        whole_room("[method]tcp-socket.set-keep-alive-enabled"),
        whole_room("[method]tcp-socket.get-keep-alive-idle-time"),
        whole_room("[method]tcp-socket.set-keep-alive-idle-time"),
        whole_room("[method]tcp-socket.get-keep-alive-interval"),
        whole_room("[method]tcp-socket.set-keep-alive-interval"),
        whole_room("[method]tcp-socket.get-keep-alive-count"),
        whole_room("[method]tcp-socket.set-keep-alive-count"),
        whole_room("[method]tcp-socket.get-hop-limit"),
        whole_room("[method]tcp-socket.set-hop-limit"),
        whole_room("[method]tcp-socket.get-receive-buffer-size"),
        whole_room("[method]tcp-socket.set-receive-buffer-size"),
        whole_room("[method]tcp-socket.get-send-buffer-size"),
        whole_room("[method]tcp-socket.set-send-buffer-size"),
        whole("[resource-drop]udp-socket"),
        whole_room("[static]udp-socket.create"),
        whole_room("[method]udp-socket.bind"),
        whole_room("[method]udp-socket.connect"),
        whole_room("[method]udp-socket.disconnect"),
        whole_room("[method]udp-socket.send"),
        whole_room("[method]udp-socket.receive"),
        whole_room("[method]udp-socket.get-local-address"),
        whole_room("[method]udp-socket.get-remote-address"),
        whole("[method]udp-socket.get-address-family"),
        whole_room("[method]udp-socket.get-unicast-hop-limit"),
        whole_room("[method]udp-socket.set-unicast-hop-limit"),
        whole_room("[method]udp-socket.get-receive-buffer-size"),
        whole_room("[method]udp-socket.set-receive-buffer-size"),
        whole_room("[method]udp-socket.get-send-buffer-size"),
        whole_room("[method]udp-socket.set-send-buffer-size"),
    ],
);

pub const SOCKETS_IP_NAME_LOOKUP: Interface = Interface::of_03(
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/ip-name-lookup@0.3",
    &[whole_room("resolve-addresses")],
);
