// SPDX-License-Identifier: Apache-2.0
// --pidfile: written when everything is up, held locked while the daemon runs, removed at its end.

import { closeSync, constants, openSync } from 'node:fs';
import { resolve } from 'node:path';

import { BlockError, Permission } from '../../base/index.js';
import type { Host, HostFile } from '../../host/index.js';

export class PidFile {
  readonly #host: Host;
  readonly #file: HostFile;
  /** From the root: the daemon may stand elsewhere when it ends. */
  readonly #path: string;

  private constructor(host: Host, file: HostFile) {
    this.#host = host;
    this.#file = file;
    this.#path = resolve(file.path);
  }

  /** Throws naming the reason when it cannot be made or another daemon holds it. */
  static async write(host: Host, path: string): Promise<PidFile> {
    let file: HostFile;
    makePrivate(path);
    try {
      file = await host.createFile(path);
    } catch (error) {
      throw failure(error, '');
    }
    try {
      file.lock({ taken: Permission.write, unshared: Permission.write });
    } catch (error) {
      await file.close();
      throw failure(error, 'Cannot lock pid file: Resource temporarily unavailable');
    }
    const pidFile = new PidFile(host, file);
    try {
      await file.truncate(0);
      await file.write(Buffer.from(`${process.pid}\n`), 0);
    } catch (error) {
      await pidFile.remove();
      throw failure(error, '');
    }
    return pidFile;
  }

  async remove(): Promise<void> {
    await this.#host.removeFile(this.#path).catch(() => undefined);
    await this.#file.close();
  }
}

/** A new file is the owner's alone. What is wrong with the path is told when it is opened. */
function makePrivate(path: string): void {
  try {
    const { O_WRONLY, O_CREAT, O_NONBLOCK } = constants;
    closeSync(openSync(path, O_WRONLY | O_CREAT | O_NONBLOCK, 0o600));
  } catch {
    return;
  }
}

function failure(error: unknown, reason: string): unknown {
  if (!(error instanceof BlockError)) return error;
  const text =
    reason === '' ? error.message.replace(/^Could not open/, 'Could not create') : reason;
  return new BlockError(error.kind, `cannot create PID file: ${text}`);
}
