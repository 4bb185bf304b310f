// SPDX-License-Identifier: Apache-2.0
// `blockwright storage-daemon`: block nodes, jobs and QMP monitors in one process.
//
// Options act in command-line order (help, version, --daemonize and mistakes of syntax come
// first); the pid file is written when all of them did. SIGTERM, SIGINT, SIGHUP and QMP's quit end
// it alike: jobs are cancelled, nodes flushed and closed, then sockets and the pid file removed;
// status 0. A listing ends it, too, and a daemon that lists never becomes ready.

import { systemClock } from '../../base/index.js';
import type { CancelTimer } from '../../base/index.js';
import { mistakeText, OptionError, readOptions, withoutSecret } from '../getopt.js';
import type { OptionSpec } from '../getopt.js';
import { report, reportFailure } from '../program.js';
import type { Program } from '../program.js';
import { versionText } from '../version.js';
import type { Daemon } from './daemon.js';
import { Detached, runDetached } from './detached.js';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'help', short: 'h', long: 'help' },
  { name: 'version', short: 'V', long: 'version' },
  { name: 'blockdev', long: 'blockdev', argument: true },
  { name: 'chardev', long: 'chardev', argument: true },
  { name: 'monitor', long: 'monitor', argument: true },
  { name: 'pidfile', long: 'pidfile', argument: true },
  { name: 'daemonize', long: 'daemonize' },
  { name: 'export', long: 'export', argument: true, unsupported: true },
  { name: 'nbd-server', long: 'nbd-server', argument: true, unsupported: true },
  { name: 'object', long: 'object', argument: true },
  { name: 'trace', short: 'T', long: 'trace', argument: true },
  { name: 'operand', operand: true },
];

const HELP = `[OPTIONS]
Block nodes, jobs and a QMP server. Options act in the order given.

  -h, --help             this help
  -V, --version          the version
  --blockdev NODE        open a block node: driver=NAME,node-name=NAME,... or JSON
  --chardev stdio,id=ID  speak on standard input and output
  --chardev socket,id=ID,path=PATH|host=HOST,port=PORT[,server=on][,wait=off]
                         listen on (or connect to) a socket; reconnect=SECONDS connects again
  --chardev file|pipe,id=ID,path=PATH, ringbuf,id=ID[,size=SIZE], null,id=ID
                         write to a file, speak on a pipe, keep the last bytes, say nothing
  --monitor [chardev=]ID[,mode=control][,pretty=on]
                         serve QMP on a character device
  --object throttle-group|iothread,id=ID[,PROPERTY=VALUE,...]
                         make an object that nodes refer to by its id; 'help' lists the types,
                         'TYPE,help' the properties of one, as '--chardev help' lists devices
  --pidfile PATH         write the process id when everything is up
  --daemonize            go on in the background; this program ends when everything is up
  -T, --trace [enable=]EVENT[,events=FILE][,file=FILE]
                         accepted and without effect: there are no events to trace
`;

interface Action {
  readonly name: string;
  readonly value: string;
  /** As it was written: the place that a failure names. */
  readonly words: string;
}

export const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
/** The event loop stays alive while the daemon waits; the period itself means nothing. */
const KEEP_ALIVE_MS = 3_600_000;

export { Detached };

export async function runStorageDaemon(
  args: readonly string[],
  program: Program,
  detached: Detached | null = null,
): Promise<number> {
  const { actions, mistake } = parse(args);
  for (const { name } of actions) {
    if (name === 'help') program.out(`usage: ${program.name} ${HELP}`);
    if (name === 'version') program.out(versionText(program.name));
    if (name === 'help' || name === 'version') return 0;
  }
  if (mistake !== null) {
    report(program, mistake);
    return 1;
  }
  if (detached === null && actions.some(({ name }) => name === 'daemonize')) {
    // The first run may be ended: the daemon sees it when it is ready.
    for (const signal of SIGNALS) process.removeAllListeners(signal);
    return runDetached(args, program);
  }
  const { Daemon: Runner } = await import('./daemon.js');
  const daemon = await Runner.start(program, detached);
  const quit = (): void => daemon.requestQuit();
  for (const signal of SIGNALS) process.on(signal, quit);
  const release = keepAlive();
  let status = 1;
  try {
    status = await serve(daemon, actions, program);
  } finally {
    status = Math.max(status, await reported(program, () => daemon.close()));
    release();
    for (const signal of SIGNALS) process.off(signal, quit);
  }
  return status;
}

/** Until the daemon is told to end; a failure names the option it is about. */
async function serve(
  daemon: Daemon,
  actions: readonly Action[],
  program: Program,
): Promise<number> {
  const { listingOf } = await import('./listings.js');
  for (const { name, value, words } of actions) {
    const listing = listingOf(name, value);
    if (listing !== null) {
      program.out(listing.text);
      return listing.status;
    }
    const shown = name === 'object' ? withoutSecret(words) : words;
    const place = { ...program, name: `${program.name}: ${shown}` };
    const status = await reported(place, () => daemon.perform(name, value, words));
    if (status !== 0) return status;
  }
  return reported(program, async () => {
    await daemon.ready();
    await daemon.quitRequested;
  });
}

/** The exit status of a step, whose failure is printed. */
async function reported(program: Program, step: () => Promise<void>): Promise<number> {
  try {
    await step();
    return 0;
  } catch (error) {
    return reportFailure(program, error);
  }
}

/** Every option up to the first mistake of syntax, and that. */
function parse(args: readonly string[]): { actions: Action[]; mistake: string | null } {
  const actions: Action[] = [];
  try {
    readOptions(args, OPTIONS, (name, value, words) => {
      actions.push({ name, value, words });
    });
    return { actions, mistake: null };
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    return { actions, mistake: mistakeText(error, OPTIONS) };
  }
}

function keepAlive(): () => void {
  let cancel: CancelTimer = () => undefined;
  const arm = (): void => {
    cancel = systemClock.after(KEEP_ALIVE_MS, arm);
  };
  arm();
  return () => cancel();
}
