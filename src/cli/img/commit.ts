// SPDX-License-Identifier: Apache-2.0
// `img commit`: what an image holds goes into its backing file (or, with -b, into one further
// below), by the job that commits an active layer; then the image is emptied unless -d keeps it.
//
// Order: the job ends with the base flushed, and only then does the image lose anything; so a
// power cut at any time leaves its view as it was. SIGINT cancels the job: what was copied stays
// in the base, hidden by the image.

import { BlockError, errnoText, Permission } from '../../base/index.js';
import type { CancelTimer } from '../../base/index.js';
import type { Node } from '../../block/index.js';
import { resolveBackingName } from '../../block/index.js';
import { backingOf, CopyEngine, createLanes, skipFilters } from '../../block/copy/index.js';
import { JobRegistry, startCommit } from '../../jobs/index.js';
import type { Job } from '../../jobs/index.js';
import { writeJson } from '../../wire/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import { sizeArgument } from './numbers.js';
import { Progress, progressMode } from './progress.js';
import { attachUser, cachePolicy, openImage, withSession } from './session.js';
import type { Session } from './session.js';
import {
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  OUTPUT,
  outputFormat,
  PROGRESS,
  QUIET,
  readVerbOptions,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'cache', short: 't', argument: true },
  { name: 'base', short: 'b', argument: true },
  { name: 'rate', short: 'r', argument: true },
  { name: 'drop', short: 'd' },
  ...PROGRESS,
  QUIET,
  OUTPUT,
];

const INTERRUPTED = 130;
/** How often progress is looked at. */
const PROGRESS_INTERVAL_MS = 100;

export const commit: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const given = new Map<string, string>();
    let speed = 0;
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name === 'rate') speed = sizeArgument('rate limit', value);
      else given.set(name, value);
    });
    const quiet = given.has('quiet');
    const mode = progressMode(given);
    const imageOptions = given.has('image-opts');
    const format = given.get('format') ?? null;
    const image = oneImage(program, operands, { format, imageOptions });
    const shape = outputFormat(given.get('output') ?? 'human');
    const policy = cachePolicy(given.get('cache') ?? 'writeback');
    if (policy === null) throw new CliError(`Invalid cache option: ${given.get('cache')}`);
    return withSession(program, async (session) => {
      const request = { image, readOnly: false, policy: { ...policy, unmap: true } };
      const top = await openImage(session, request);
      const { consistentRead, write } = Permission;
      const taken = consistentRead | write;
      const user = await attachUser(session, { node: top, name: image.text, taken });
      const base = await findBase(session, top, { image: image.text, base: given.get('base') });
      const progress = new Progress(program, mode, top.length);
      const isEmptied = !given.has('drop') && !given.has('base');
      try {
        await runCommit(session, { top, base, speed, progress });
        if (isEmptied) await empty(top);
      } finally {
        progress.end();
      }
      await user.detach();
      if (shape === 'json') {
        const facts = { image: top.filename, base: base.filename, emptied: isEmptied };
        program.out(`${writeJson(facts, { pretty: true })}\n`);
      } else if (!quiet) program.out('Image committed.\n');
      return 0;
    });
  },
};

/** The backing file, or the one below that -b names as one of the headers or from where it is. */
async function findBase(
  session: Session,
  top: Node,
  names: { readonly image: string; readonly base: string | undefined },
): Promise<Node> {
  if (names.base === undefined) {
    const base = backingOf(top);
    if (base !== null) return base;
    throw new CliError('Image does not have a backing file');
  }
  for (let node: Node | null = top; node !== null; node = backingOf(node)) {
    const below = backingOf(node);
    if (below !== null && (await isNamed(session, { node, below, name: names.base }))) return below;
  }
  throw new CliError(`Did not find '${names.base}' in the backing chain of '${names.image}'`);
}

async function isNamed(
  session: Session,
  link: { readonly node: Node; readonly below: Node; readonly name: string },
): Promise<boolean> {
  const { node, below, name } = link;
  if (skipFilters(node).backingLink()?.file === name) return true;
  try {
    const path = resolveBackingName(skipFilters(node).filename, name);
    const wanted = await session.host.stat(path);
    const there = await session.host.stat(below.filename);
    if (wanted === null || there === null) return false;
    const [a, b] = [wanted.identity, there.identity];
    return a.device === b.device && a.inode === b.inode;
  } catch (error) {
    if (error instanceof BlockError) return false;
    throw error;
  }
}

interface CommitRun {
  readonly top: Node;
  readonly base: Node;
  /** Bytes per second; 0 = no limit. */
  readonly speed: number;
  readonly progress: Progress;
}

async function runCommit(session: Session, run: CommitRun): Promise<void> {
  const { graph, registry } = session;
  const { top, base, speed, progress } = run;
  const engine = new CopyEngine({ lanes: createLanes(session.host) });
  let job: Job | null = null;
  let interrupted = false;
  const jobs = new JobRegistry({
    graph,
    engine,
    driver: (name) => registry.load(name),
    // Links stay as they are: the image goes on standing on its backing file.
    emit: ({ name }) => {
      if (name === 'BLOCK_JOB_READY') void job?.cancelBlock(false);
    },
  });
  const onInterrupt = (): void => {
    interrupted = true;
    void job?.cancelForExit();
  };
  process.once('SIGINT', onInterrupt);
  const stopTimer = watch(session, () => {
    if (job !== null) progress.update(Math.min(top.length, job.progress));
  });
  try {
    job = await startCommit(jobs, {
      'job-id': 'commit',
      device: top.name,
      'base-node': base.name,
      'auto-dismiss': false,
      speed,
    });
    // It may have come while the job was being made.
    if (interrupted) onInterrupt();
    await job.ended;
    const failure = job.info().error;
    if (interrupted) throw new CliError('interrupted, the image is as it was', INTERRUPTED);
    if (failure !== undefined) throw new CliError(`Block job failed: ${failure}`);
    progress.complete();
  } finally {
    stopTimer();
    process.off('SIGINT', onInterrupt);
    await engine.close();
  }
}

/** Calls `look` from time to time until the result is called. */
function watch(session: Session, look: () => void): CancelTimer {
  const { clock } = session.graph;
  const again = (): void => {
    look();
    cancel = clock.after(PROGRESS_INTERVAL_MS, again);
  };
  let cancel = clock.after(PROGRESS_INTERVAL_MS, again);
  return () => cancel();
}

/** A layer that cannot be empty keeps what it holds. */
async function empty(top: Node): Promise<void> {
  const image = skipFilters(top);
  const { driverNode } = image;
  if (driverNode.makeEmpty === undefined) return;
  const run = driverNode.makeEmpty.bind(driverNode);
  try {
    await image.exclusive(0, image.length, run);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const text = `Failed to empty ${image.filename}: ${errnoText(error.errno)}`;
    throw new CliError(text, 1, error);
  }
}
