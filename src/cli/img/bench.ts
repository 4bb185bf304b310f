// SPDX-License-Identifier: Apache-2.0
// `img bench`: sends requests of one size to an image, so many at once, and says how long they
// took. Offsets begin anew at the end of the image; a request across it fails, as any other.

import { BlockError, errnoText, InFlight, Permission } from '../../base/index.js';
import type { Backend, OpenPolicy } from '../../block/index.js';
import { yieldToLoop } from '../../block/copy/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { sizeArgument } from './numbers.js';
import { attachUser, cachePolicy, openImage, withSession } from './session.js';
import type { ImageName, Session } from './session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  QUIET,
  readVerbOptions,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'count', short: 'c', argument: true },
  { name: 'depth', short: 'd', argument: true },
  { name: 'flush-interval', long: 'flush-interval', argument: true },
  { name: 'aio', short: 'i', argument: true },
  { name: 'native', short: 'n' },
  { name: 'no-drain', long: 'no-drain' },
  { name: 'offset', short: 'o', argument: true },
  { name: 'pattern', long: 'pattern', argument: true },
  QUIET,
  { name: 'buffer-size', short: 's', argument: true },
  { name: 'step', short: 'S', argument: true },
  { name: 'cache', short: 't', argument: true },
  { name: 'write', short: 'w' },
  FORCE_SHARE,
];

const INT_MAX = 2_147_483_647;
const AIO_MODES = ['threads', 'native', 'io_uring'];
/** Requests after which the event loop gets a turn, when none of them waited. */
const TURN = 1024;

interface BenchArguments {
  readonly image: ImageName;
  readonly count: number;
  readonly depth: number;
  /** Requests between flushes; 0 = never. */
  readonly flushInterval: number;
  readonly drains: boolean;
  /** Bytes. */
  readonly offset: number;
  readonly size: number;
  readonly step: number;
  readonly pattern: number;
  readonly writes: boolean;
  readonly policy: OpenPolicy;
}

export const bench: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const command = parse(args, program);
    return withSession(program, (session) => runBench(session, command, program));
  },
};

function parse(args: readonly string[], program: Program): BenchArguments {
  const given = new Map<string, string>();
  const numbers = new Map<string, number>();
  let aio: string | null = null;
  let policy: OpenPolicy = {};
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    const read = NUMBERS[name];
    if (read !== undefined) numbers.set(name, read(value));
    else if (name === 'aio') aio = aioMode(value);
    else if (name === 'native') aio = 'native';
    else if (name === 'cache') policy = cacheMode(value);
    else given.set(name, value);
  });
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  const image = oneImage(program, operands, { format, imageOptions });
  const writes = given.has('write');
  const depth = numbers.get('depth') ?? 64;
  const flushInterval = numbers.get('flush-interval') ?? 0;
  if (!writes && flushInterval > 0) {
    throw new CliError('--flush-interval is only available in write tests');
  }
  if (flushInterval > 0 && flushInterval < depth) {
    throw new CliError("Flush interval can't be smaller than depth");
  }
  if (aio === 'native' && policy.direct !== true) {
    const text = 'aio=native was specified, but it requires cache.direct=on, which was not';
    throw new CliError(`Could not open '${image.text}': ${text} specified.`);
  }
  const share = given.has('share');
  if (share && writes) {
    const text = 'force-share=on can only be used with read-only images';
    throw new CliError(`Could not open '${image.text}': ${text}`);
  }
  const size = numbers.get('buffer-size') ?? 4096;
  return {
    image,
    count: numbers.get('count') ?? 75_000,
    depth,
    flushInterval,
    drains: !given.has('no-drain'),
    offset: numbers.get('offset') ?? 0,
    size,
    step: numbers.get('step') || size,
    pattern: numbers.get('pattern') ?? 0,
    writes,
    policy: { ...policy, forceShare: share },
  };
}

const NUMBERS: Readonly<Record<string, (text: string) => number>> = {
  count: (text) => wholeNumber(text, 'request count', 0),
  depth: (text) => wholeNumber(text, 'queue depth', 1),
  'flush-interval': (text) => wholeNumber(text, 'flush interval', 0),
  offset: (text) => sizeArgument('offset', text),
  'buffer-size': (text) => sizeArgument('buffer size', text, { most: INT_MAX }),
  step: (text) => sizeArgument('step_size', text, { most: INT_MAX }),
  pattern(text) {
    const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : 256;
    if (value > 255) throw new CliError('Invalid pattern byte specified');
    return value;
  },
};

function wholeNumber(text: string, what: string, least: number): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : -1;
  if (value >= least && value <= INT_MAX) return value;
  throw new CliError(`Invalid ${what} specified`);
}

function aioMode(text: string): string {
  if (AIO_MODES.includes(text)) return text;
  throw new CliError(`Invalid aio option: ${text}`);
}

function cacheMode(text: string): OpenPolicy {
  const policy = cachePolicy(text);
  if (policy === null) throw new CliError('Invalid cache mode');
  return policy;
}

async function runBench(
  session: Session,
  command: BenchArguments,
  program: Program,
): Promise<number> {
  const { image, writes, policy, count, size, depth, offset, step } = command;
  const node = await openImage(session, { image, readOnly: !writes, policy });
  const taken = Permission.consistentRead | (writes ? Permission.write : 0);
  const user = await attachUser(session, { node, name: image.text, taken });
  program.out(
    `Sending ${count} ${writes ? 'write' : 'read'} requests, ${size} bytes each, ${depth} in ` +
      `parallel (starting at offset ${offset}, step size ${step})\n`,
  );
  if (command.flushInterval > 0) {
    program.out(`Sending flush every ${command.flushInterval} requests\n`);
  }
  const { clock } = session.graph;
  const begin = clock.now();
  try {
    await new Requests(user, command).run();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Failed request: ${errnoText(error.errno)}`);
  }
  const seconds = (clock.now() - begin) / 1000;
  program.out(`Run completed in ${seconds.toFixed(3)} seconds.\n`);
  await user.detach();
  return 0;
}

class Requests {
  readonly #user: Backend;
  readonly #command: BenchArguments;
  readonly #free: Uint8Array[] = [];
  readonly #running = new InFlight();
  #failure: unknown = null;

  constructor(user: Backend, command: BenchArguments) {
    this.#user = user;
    this.#command = command;
  }

  async run(): Promise<void> {
    const { count, depth, step, flushInterval, drains } = this.#command;
    const { length } = this.#user.node;
    let { offset } = this.#command;
    for (let sent = 0; sent < count && this.#failure === null; sent += 1) {
      while (this.#running.size >= depth) await this.#running.oneEnds();
      this.#send(offset);
      offset = length === 0 ? 0 : (offset + step) % length;
      if (flushInterval > 0 && (sent + 1) % flushInterval === 0) {
        if (drains) await this.#running.allEnd();
        this.#note(this.#user.flush());
        if (drains) await this.#running.allEnd();
      }
      if (sent % TURN === TURN - 1) await yieldToLoop();
    }
    await this.#running.allEnd();
    if (this.#failure !== null) throw this.#failure as Error;
  }

  #send(offset: number): void {
    const { size, pattern, writes } = this.#command;
    if (offset + size > this.#user.node.length) {
      throw new BlockError('io', 'The request goes beyond the end of the image');
    }
    const buffer = this.#free.pop() ?? new Uint8Array(size).fill(pattern);
    const done = writes ? this.#user.write(offset, buffer) : this.#user.read(offset, buffer);
    if (!(done instanceof Promise)) this.#free.push(buffer);
    else this.#note(done.finally(() => this.#free.push(buffer)));
  }

  /** Counts what has not ended yet; its failure ends the run. */
  #note(done: void | Promise<void>): void {
    if (!(done instanceof Promise)) return;
    const fail = (error: unknown): void => {
      this.#failure ??= error;
    };
    this.#running.add(done.catch(fail));
  }
}
