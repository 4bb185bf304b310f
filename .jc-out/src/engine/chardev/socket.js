// SPDX-License-Identifier: Apache-2.0
// Sockets as character devices: servers, which any number of clients may speak to at once, and
// clients, which connect again after a while where they are told to.
import { BlockError, CHARDEV_LIMITS, errnoText } from '../../base/index.js';
import { connectSocket, listenSocket } from '../../host/index.js';
/** Binds or connects; with `wait` resolves when the first client is there. */
export async function openSocketChardev(options, place) {
    requireSupported(options);
    const { server = true, wait, reconnect = 0 } = options;
    if (server && reconnect !== 0) {
        throw invalid("'reconnect' option is incompatible with socket in server listen mode");
    }
    if (!server && wait !== undefined) {
        throw invalid("'wait' option is incompatible with socket in client connect mode");
    }
    const chardev = new SocketChardev(options, place.clock);
    if (server)
        await chardev.listen();
    if (server && wait !== true)
        return chardev;
    const giveUp = () => void chardev.close();
    place.quit.addEventListener('abort', giveUp);
    try {
        if (place.quit.aborted)
            giveUp();
        await (server ? chardev.firstClient : chardev.connect());
    }
    finally {
        place.quit.removeEventListener('abort', giveUp);
    }
    return chardev;
}
function invalid(message) {
    return new BlockError('invalid-option', message);
}
function requireSupported(options) {
    for (const name of ['telnet', 'tn3270', 'websocket']) {
        if (options[name] === true)
            throw unsupported(`'${name}' of a socket chardev`);
    }
    if (options['tls-creds'] !== undefined) {
        throw invalid(`No TLS credentials with id '${options['tls-creds']}'`);
    }
    if (options['tls-authz'] !== undefined) {
        throw invalid("'tls-authz' option requires 'tls-creds' option");
    }
    const { reconnect = 0, addr } = options;
    if (reconnect < 0 || reconnect > CHARDEV_LIMITS.reconnectSeconds) {
        const most = CHARDEV_LIMITS.reconnectSeconds;
        throw invalid(`'reconnect' must be between 0 and ${most} seconds`);
    }
    if (addr.type === 'fd')
        throw invalid('only QEMU supports file descriptor passing');
    if (addr.type === 'vsock')
        throw unsupported("socket address type 'vsock'");
    if (addr.type === 'unix' && addr.data.abstract === true) {
        throw unsupported("'abstract' of a unix socket");
    }
    if (addr.type === 'inet' && addr.data.mptcp === true)
        throw unsupported("'mptcp' of a socket");
}
function unsupported(what) {
    return new BlockError('unsupported', `${what} is not supported`);
}
function addressOf(addr) {
    if (addr.type === 'unix')
        return { type: 'unix', path: addr.data.path };
    if (addr.type !== 'inet')
        throw unsupported(`socket address type '${addr.type}'`);
    const { host, port } = addr.data;
    if (!/^\d+$/.test(port) || Number(port) > 65_535) {
        const reason = 'Servname not supported for ai_socktype';
        throw invalid(`address resolution failed for ${host}:${port}: ${reason}`);
    }
    return { type: 'inet', host: host === '' ? '0.0.0.0' : host, port: Number(port) };
}
class SocketChardev {
    kind = 'socket';
    /** Resolves when it is closed, too. */
    firstClient;
    #options;
    #clock;
    #waiting = new Set();
    #sockets = new Set();
    #address;
    #listener = null;
    #user = null;
    #arrived = null;
    #cancelRetry = null;
    /** Aborted when the device is closed. */
    #givingUp = new AbortController();
    constructor(options, clock) {
        this.#options = options;
        this.#clock = clock;
        this.#address = addressOf(options.addr);
        this.firstClient = new Promise((resolve) => {
            this.#arrived = resolve;
        });
    }
    get inUse() {
        return this.#user !== null;
    }
    get filename() {
        const [socket] = this.#sockets;
        const role = this.#listener === null ? '' : ',server=on';
        const address = this.#address;
        if (socket === undefined) {
            const place = address.type === 'unix' ? `unix:${address.path}` : tcp(address);
            return `disconnected:${place}${role}`;
        }
        // This end of the connection; a client of a unix socket has no name there.
        if (address.type === 'unix')
            return `unix:${role === '' ? '' : address.path}${role}`;
        const { localAddress, localPort, remoteAddress, remotePort } = socket;
        const peer = tcp({ host: remoteAddress, port: remotePort }).slice('tcp:'.length);
        return `${tcp({ host: localAddress, port: localPort })}${role} <-> ${peer}`;
    }
    properties = new Map([
        ['connected', { type: 'bool', get: () => this.#sockets.size > 0 }],
        ['addr', { type: 'SocketAddress', get: () => this.#shownAddress() }],
    ]);
    async listen() {
        const accept = (socket) => this.#accept(socket);
        const address = this.#address;
        const { addr } = this.#options;
        const last = addr.type === 'inet' ? (addr.data.to ?? 0) : 0;
        for (let candidate = address;;) {
            try {
                this.#listener = await listenSocket(candidate, accept);
                this.#address = this.#listener.address;
                return;
            }
            catch (error) {
                const next = candidate.type === 'inet' ? candidate.port + 1 : Infinity;
                if (candidate.type === 'unix' || next > last || !isInUse(error)) {
                    throw bindFailure(address, error);
                }
                candidate = { ...candidate, port: next };
            }
        }
    }
    /** Fails only where it will not be tried again, and not when it is closed meanwhile. */
    async connect() {
        try {
            this.#accept(await connectSocket(this.#address, this.#givingUp.signal));
        }
        catch (error) {
            if (!this.#retry() && !this.#isClosed)
                throw error;
        }
    }
    get #isClosed() {
        return this.#givingUp.signal.aborted;
    }
    attach(user) {
        if (this.#user !== null)
            return false;
        this.#user = user;
        const waiting = [...this.#waiting];
        this.#waiting.clear();
        for (const socket of waiting)
            user(streamsOf(socket));
        return true;
    }
    async close() {
        this.#givingUp.abort();
        this.#arrived?.();
        this.#cancelRetry?.();
        for (const socket of this.#sockets)
            socket.destroy();
        await this.#listener?.close();
    }
    #accept(socket) {
        this.#arrived?.();
        this.#sockets.add(socket);
        const { addr, nodelay = false } = this.#options;
        if (addr.type === 'inet') {
            if (nodelay)
                socket.setNoDelay(true);
            if (addr.data['keep-alive'] === true)
                socket.setKeepAlive(true);
        }
        // It may break before anybody listens; then it is closed as well.
        socket.on('error', () => undefined);
        socket.once('close', () => {
            this.#sockets.delete(socket);
            this.#waiting.delete(socket);
            this.#retry();
        });
        if (this.#user !== null)
            this.#user(streamsOf(socket));
        else if (this.#waiting.size < CHARDEV_LIMITS.waitingClients)
            this.#waiting.add(socket);
        else
            socket.destroy();
    }
    /** True when it will be tried again. */
    #retry() {
        const seconds = Number(this.#options.reconnect ?? 0);
        if (this.#listener !== null || seconds === 0 || this.#isClosed)
            return false;
        this.#cancelRetry = this.#clock.after(seconds * 1000, () => void this.connect());
        return true;
    }
    #shownAddress() {
        const address = this.#address;
        if (address.type === 'unix')
            return { path: address.path, type: 'unix' };
        const plain = { port: String(address.port), host: address.host, type: 'inet' };
        // Of a server, what was bound; of a client, what was asked for.
        if (this.#listener === null)
            return plain;
        return { ...plain, [address.host.includes(':') ? 'ipv6' : 'ipv4']: true };
    }
}
function streamsOf(socket) {
    // A client that has said all still gets its answers (`echo … | socat - UNIX:…`).
    socket.allowHalfOpen = true;
    return { input: socket, output: socket };
}
function tcp({ host = '', port = 0 }) {
    return `tcp:${host.includes(':') ? `[${host}]` : host}:${port}`;
}
function isInUse(error) {
    return error instanceof BlockError && error.context.errno === 'EADDRINUSE';
}
function bindFailure(address, error) {
    if (!(error instanceof BlockError) || error.context.errno === undefined)
        return error;
    const { errno } = error.context;
    if (address.type === 'inet' && errno === 'EADDRINUSE') {
        const text = 'Failed to find an available port: Address already in use';
        return new BlockError(error.kind, text, { errno });
    }
    const place = address.type === 'unix' ? ` to ${address.path}` : '';
    // The reason stands behind the address, where the host found it.
    const known = /': (.*)$/.exec(error.message)?.[1] ?? errnoText(errno);
    return new BlockError(error.kind, `Failed to bind socket${place}: ${known}`, { errno });
}
