// SPDX-License-Identifier: Apache-2.0
// The one error class of the project and its few stable kinds.
//
// A BlockError is a user's mistake, a bad image or a failing host: it is caught, reported and
// survived. A programmer's mistake is an assertion (assert.ts) and is never turned into one.
// The kind drives control flow; every mapping of a kind (errno, QMP class) stands in ERROR_KINDS.

export type QmpErrorClass =
  | 'GenericError'
  | 'CommandNotFound'
  | 'DeviceNotActive'
  | 'DeviceNotFound'
  | 'KVMMissingCap';

interface KindFacts {
  readonly errno: string;
  readonly qmp: QmpErrorClass;
}

export const ERROR_KINDS = {
  io: { errno: 'EIO', qmp: 'GenericError' },
  'no-space': { errno: 'ENOSPC', qmp: 'GenericError' },
  'corrupt-image': { errno: 'EINVAL', qmp: 'GenericError' },
  unsupported: { errno: 'ENOTSUP', qmp: 'GenericError' },
  'invalid-option': { errno: 'EINVAL', qmp: 'GenericError' },
  'invalid-state': { errno: 'EINVAL', qmp: 'GenericError' },
  'out-of-range': { errno: 'EIO', qmp: 'GenericError' },
  permission: { errno: 'EPERM', qmp: 'GenericError' },
  'access-denied': { errno: 'EACCES', qmp: 'GenericError' },
  'read-only': { errno: 'EROFS', qmp: 'GenericError' },
  busy: { errno: 'EBUSY', qmp: 'GenericError' },
  locked: { errno: 'EAGAIN', qmp: 'GenericError' },
  exists: { errno: 'EEXIST', qmp: 'GenericError' },
  'not-found': { errno: 'ENOENT', qmp: 'GenericError' },
  'device-not-found': { errno: 'ENODEV', qmp: 'DeviceNotFound' },
  'device-not-active': { errno: 'ENODEV', qmp: 'DeviceNotActive' },
  'command-not-found': { errno: 'ENOSYS', qmp: 'CommandNotFound' },
  'too-large': { errno: 'EFBIG', qmp: 'GenericError' },
  cancelled: { errno: 'ECANCELED', qmp: 'GenericError' },
  closed: { errno: 'ENOMEDIUM', qmp: 'GenericError' },
} as const satisfies Record<string, KindFacts>;

export type ErrorKind = keyof typeof ERROR_KINDS;

/** Where an error happened; every member is optional and printed only when it helps. */
export interface ErrorContext {
  readonly node?: string;
  readonly path?: string;
  /** Byte offset the operation was asked for. */
  readonly offset?: number;
  readonly operation?: string;
  /** errno name from the host, when it is more precise than the kind's own. */
  readonly errno?: string;
  /** Second line printed by command lines, without a trailing newline. */
  readonly hint?: string;
  /** Who holds what was refused, where that is known: `node 'x'`, `process 1 (name)`. */
  readonly holder?: string;
  /** The message ends with ` (detail)`, which command lines under foreign names leave out. */
  readonly detail?: string;
  readonly cause?: unknown;
}

export class BlockError extends Error {
  readonly kind: ErrorKind;
  readonly context: ErrorContext;

  constructor(kind: ErrorKind, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    this.name = 'BlockError';
    this.kind = kind;
    this.context = context;
  }

  /** errno name (`EIO`, `ENOSPC`, …) for protocols that speak errno. */
  get errno(): string {
    return this.context.errno ?? ERROR_KINDS[this.kind].errno;
  }

  get qmpClass(): QmpErrorClass {
    return ERROR_KINDS[this.kind].qmp;
  }
}

const KIND_OF_ERRNO: Readonly<Record<string, ErrorKind>> = {
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  ENOENT: 'not-found',
  EEXIST: 'exists',
  EACCES: 'access-denied',
  EPERM: 'permission',
  EROFS: 'read-only',
  EBUSY: 'busy',
  EAGAIN: 'locked',
  EFBIG: 'too-large',
  ENOTSUP: 'unsupported',
  EOPNOTSUPP: 'unsupported',
  EINVAL: 'invalid-option',
  ECANCELED: 'cancelled',
};

/** The kind that stands for a host errno name; anything unknown is an I/O error. */
export function kindOfErrno(errno: string): ErrorKind {
  return KIND_OF_ERRNO[errno] ?? 'io';
}

/** Text for an errno name as strerror(3) prints it in the C locale; the name itself if unknown. */
export function errnoText(errno: string): string {
  return ERRNO_TEXT[errno] ?? errno;
}

const ERRNO_TEXT: Readonly<Record<string, string>> = {
  EIO: 'Input/output error',
  ENOSPC: 'No space left on device',
  EINVAL: 'Invalid argument',
  ENOTSUP: 'Operation not supported',
  EOPNOTSUPP: 'Operation not supported',
  EPERM: 'Operation not permitted',
  EACCES: 'Permission denied',
  EROFS: 'Read-only file system',
  EBUSY: 'Device or resource busy',
  EAGAIN: 'Resource temporarily unavailable',
  EEXIST: 'File exists',
  ENOENT: 'No such file or directory',
  ENODEV: 'No such device',
  ENOSYS: 'Function not implemented',
  EFBIG: 'File too large',
  ECANCELED: 'Operation canceled',
  ENOMEDIUM: 'No medium found',
  EISDIR: 'Is a directory',
  ENOTDIR: 'Not a directory',
  ENAMETOOLONG: 'File name too long',
  ELOOP: 'Too many levels of symbolic links',
  EMFILE: 'Too many open files',
  ENOMEM: 'Cannot allocate memory',
  EDQUOT: 'Disk quota exceeded',
  ENXIO: 'No such device or address',
};

/** Turns whatever was thrown into a BlockError; assertion failures pass through untouched. */
export function toBlockError(thrown: unknown, context: ErrorContext = {}): BlockError {
  if (thrown instanceof BlockError) return thrown;
  const code = (thrown as { code?: unknown } | null)?.code;
  if (typeof code === 'string' && /^E[A-Z0-9]+$/.test(code)) {
    return new BlockError(kindOfErrno(code), errnoText(code), {
      ...context,
      errno: code,
      cause: thrown,
    });
  }
  throw thrown;
}
