// SPDX-License-Identifier: Apache-2.0
// The tour's daemon as seen from the process that started it: its life, and its guest by message.
import { type ChildProcess, fork } from 'node:child_process';
import type { DaemonReport, GuestOrder } from './daemon.js';
import { adopt, MAIN } from './images.js';

export class DaemonProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('close', resolve));
  }

  /** Resolves when the daemon listens on `socket`. */
  static async start(socket: string): Promise<DaemonProcess> {
    const child = fork(MAIN, ['tour', '--serve', socket]);
    adopt(child);
    const daemon = new DaemonProcess(child);
    await daemon.#report();
    return daemon;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Moves the guest; gives the count of requests that it has done so far. */
  async order(order: GuestOrder): Promise<number> {
    const report = this.#report();
    this.#child.send(order);
    return (await report).stepCount;
  }

  /** Waits for the end that a client asked for. */
  async ended(): Promise<void> {
    const status = await this.#ended;
    if (status !== 0) throw new Error(`the daemon ended with status ${status}`);
  }

  #report(): Promise<DaemonReport> {
    return new Promise((resolve, reject) => {
      const gone = (status: number | null): void =>
        reject(new Error(`the daemon ended with status ${status}`));
      this.#child.once('close', gone);
      this.#child.once('message', (message) => {
        this.#child.off('close', gone);
        const report = message as DaemonReport;
        if (report.error === undefined) resolve(report);
        else reject(new Error(report.error));
      });
    });
  }
}
