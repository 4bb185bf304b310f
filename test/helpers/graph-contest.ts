// SPDX-License-Identifier: Apache-2.0
// One sequence of commands for two daemons, a real one and ours, each with its own copy of the
// images: after every command answers, events and graphs must be the same, at the end the images.
//
// The first difference ends a contest. A real daemon that dies, hangs or forgets to let go of a
// node after a job ends it too: what it would have answered is unknown, and the caller shows it as
// skipped.

import { rmSync } from 'node:fs';
import { writeJson } from '../../src/wire/index.js';
import {
  differsOnPurpose, readsImageFiles, sameAnswer, sameFacts, sameReport,
} from './graph-exceptions.js';
import { copyImages, imagesIn, newFolder, reportOn, sameBytes } from './graph-images.js';
import { graphState } from './graph-state.js';
import type { GraphReply, GraphState } from './graph-state.js';
import { startOwnDaemon } from './own-daemon.js';
import { peer } from './peers.js';
import { startRealDaemon } from './real-daemon.js';
import { Conversation } from './transcript.js';
import type { Line, Step } from './transcript.js';

/** File names begin with `DIR/`, which each player replaces by its own folder. */
export interface GraphCommand {
  readonly execute: string;
  readonly arguments: Line;
  /** The job to wait for, if the command starts one. */
  readonly job?: string;
  /** What ends a job that is ready. */
  readonly finish?: 'block-job-complete' | 'block-job-cancel';
}

export interface Outcome {
  readonly kind: 'same' | 'different' | 'on-purpose' | 'reference-died';
  readonly played: readonly GraphCommand[];
  readonly accepted: number;
  /** What differs, the reference's lines first; empty if nothing does. On purpose: why. */
  readonly difference: string;
  /** Refusals of one class in other words: mostly, which of several faults was seen first. */
  readonly wordings: readonly string[];
  /** Files that refused commands were to make. */
  readonly refused: readonly string[];
  /** The bytes of a qcow2 file were data of another image. */
  readonly raw: boolean;
}

/** Gives the next command, told the graph and whether the last was accepted; null ends. */
export type Player = (state: GraphState, accepted: boolean) => GraphCommand | null;

interface Side {
  readonly directory: string;
  readonly conversation: Conversation;
}

interface Turn {
  readonly said: readonly Line[];
  readonly state: GraphState;
}

/** A job's own user of a node, which the reference forgets when the job ends in some ways. */
const FORGOTTEN = 'reference: has block-backend';
const PATIENCE_MS = 20_000;
const QUERIES = ['x-debug-query-block-graph', 'query-named-block-nodes'] as const;
const LOOK = [
  writeJson({ execute: QUERIES[0] }),
  writeJson({ execute: QUERIES[1], arguments: { flat: true } }),
].join('\n');

async function patient<T>(work: Promise<T>): Promise<T | null> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const over = new Promise<null>((resolve) => {
    signal.addEventListener('abort', () => resolve(null), { once: true });
  });
  return await Promise.race([work, over]);
}

function placed<T>(value: T, from: string, to: string): T {
  return JSON.parse(JSON.stringify(value).replaceAll(from, to)) as T;
}

async function playOn(side: Side, command: GraphCommand | null): Promise<Turn | null> {
  const { directory, conversation } = side;
  let said: readonly Line[] = [];
  if (command !== null) {
    const { execute, arguments: args, job } = placed(command, 'DIR/', `${directory}/`);
    const send = writeJson({ execute, arguments: args });
    const step: Step = job === undefined ? send
      : { send, until: `ready ${job} or null ${job}` };
    said = placed(await conversation.play(step), `${directory}/`, 'DIR/');
    if (job !== undefined && isReady(said)) {
      said = [...said, ...(await finished(side, job, command.finish ?? 'block-job-complete'))];
    }
    if (said.every((line) => !('return' in line) && !('error' in line))) return null;
  }
  const seen = placed(await conversation.ask(LOOK), `${directory}/`, 'DIR/');
  const [graph, nodes] = seen.map((line) => line['return']);
  if (graph === undefined || nodes === undefined) return null;
  return { said, state: graphState(graph as GraphReply, nodes as Line[]) };
}

function isReady(said: readonly Line[]): boolean {
  return said.some((line) => line['event'] === 'BLOCK_JOB_READY');
}

/** Ends a job that is ready; one that cannot be completed is cancelled. */
async function finished(side: Side, job: string, how: string): Promise<readonly Line[]> {
  const send = writeJson({ execute: how, arguments: { device: job } });
  const played = await side.conversation.play({ send, until: `null ${job}` });
  const said = placed(played, `${side.directory}/`, 'DIR/');
  if (how === 'block-job-cancel' || said.every((line) => !('error' in line))) return said;
  return [...said, ...(await finished(side, job, 'block-job-cancel'))];
}

function listed(label: string, lines: readonly string[]): string {
  return lines.map((line) => `${label} ${line}`).join('\n');
}

/** Lines that only one of two lists has. */
function changes(theirs: readonly string[], ours: readonly string[]): string {
  const missing = theirs.filter((line) => !ours.includes(line));
  const extra = ours.filter((line) => !theirs.includes(line));
  return [listed('reference:', missing), listed('ours:     ', extra)].join('\n').trim();
}

function refusal(turn: Turn): { readonly class: string; readonly desc: string } | null {
  const line = turn.said.find((each) => 'error' in each);
  return (line?.['error'] as { class: string; desc: string } | undefined) ?? null;
}

/** The same class of refusal in other words, or null. */
function otherWords(theirs: Turn, ours: Turn): string | null {
  const [their, our] = [refusal(theirs), refusal(ours)];
  if (their === null || our === null || their.class !== our.class) return null;
  return their.desc === our.desc ? null : `reference: ${their.desc}\nours:      ${our.desc}`;
}

function differences(command: GraphCommand, theirs: Turn, ours: Turn): string {
  const texts = (turn: Turn): string[] => sameAnswer(command, turn.said);
  const facts = changes(sameFacts(theirs.state), sameFacts(ours.state));
  if (otherWords(theirs, ours) !== null) return facts;
  const answers = changes(texts(theirs), texts(ours));
  if (answers !== '') return answers;
  if (texts(theirs).join('\n') !== texts(ours).join('\n')) {
    const sides = [listed('reference:', texts(theirs)), listed('ours:     ', texts(ours))];
    return ['order of events', ...sides].join('\n');
  }
  return facts;
}

function imageDifferences(
  theirs: string,
  ours: string,
  { refused, raw }: Outcome,
): string {
  const wanted = (directory: string): string[] =>
    imagesIn(directory).filter((name) => !refused.includes(`DIR/${name}`));
  const listing = changes(wanted(theirs), wanted(ours));
  if (listing !== '') return listing;
  const found: string[] = [];
  for (const name of wanted(theirs)) {
    if (sameBytes(name, theirs, ours)) continue;
    const reports = sameReport(reportOn(theirs, name), reportOn(ours, name), raw);
    const [left, right] = reports.map((report) => Object.entries(report)
      .map(([key, value]) => `${name} ${key}: ${JSON.stringify(value)}`));
    const changed = changes(left ?? [], right ?? []);
    if (changed !== '') found.push(changed);
  }
  return found.join('\n');
}

interface Rivals {
  readonly theirs: Side;
  readonly ours: Side;
}

async function greeted(side: Side): Promise<void> {
  await side.conversation.greeting();
  await side.conversation.play(writeJson({ execute: 'qmp_capabilities' }));
}

async function contest({ theirs, ours }: Rivals, player: Player): Promise<Outcome> {
  const played: GraphCommand[] = [];
  const wordings: string[] = [];
  const refused: string[] = [];
  let accepted = 0;
  const ended = (kind: Outcome['kind'], difference = ''): Outcome =>
    ({ kind, played, accepted, difference, wordings, refused, raw });
  let state = (await playOn(theirs, null))?.state;
  let last = true;
  let before = '';
  let raw = false;
  for (;;) {
    if (state === undefined) return ended('reference-died');
    const command = player(state, last);
    if (command === null) return ended('same');
    played.push(command);
    const [their, our] = await Promise.all([
      patient(playOn(theirs, command)), patient(playOn(ours, command)),
    ]);
    if (our === null) return ended(their === null ? 'reference-died' : 'different', 'ours hangs');
    if (their === null) return ended('reference-died');
    let difference = differences(command, their, our);
    if (difference !== '' && command.job !== undefined) {
      // A job may still be letting go of its nodes.
      const [again, ourAgain] = [await playOn(theirs, null), await playOn(ours, null)];
      if (again === null || ourAgain === null) return ended('reference-died');
      difference = differences(
        command,
        { ...their, state: again.state },
        { ...our, state: ourAgain.state },
      );
    }
    if (difference.includes(FORGOTTEN)) return ended('reference-died');
    const said = { theirs: their.said, ours: our.said, difference };
    const unchanged = sameFacts(our.state).join() === before;
    before = sameFacts(our.state).join();
    const purpose = difference === '' ? null : differsOnPurpose(command, said, unchanged);
    if (purpose !== null) return ended('on-purpose', purpose);
    if (difference !== '') return ended('different', difference);
    const words = otherWords(their, our);
    if (words !== null) wordings.push(`${JSON.stringify(command)}\n${words}`);
    last = their.said.some((line) => 'return' in line);
    if (last) accepted += 1;
    raw ||= readsImageFiles(their.state, command);
    // What a refused snapshot leaves of the file it was to make is of no use.
    const made = command.arguments['snapshot-file'];
    if (!last && typeof made === 'string' && command.arguments['mode'] !== 'existing') {
      refused.push(made);
    }
    state = their.state;
  }
}

/** Lets `player` play against both. */
export async function playBoth(player: Player): Promise<Outcome> {
  const [directory, own] = [newFolder(), newFolder()];
  try {
    for (const each of [directory, own]) copyImages(each);
    let outcome: Outcome;
    {
      await using real = await startRealDaemon(peer('qemu-storage-daemon') as string, directory);
      await using daemon = await startOwnDaemon(own, undefined, { ownBackingFormat: true });
      const theirs = { directory, conversation: new Conversation(real.socket) };
      const ours = { directory: own, conversation: new Conversation(await daemon.connect()) };
      await Promise.all([greeted(theirs), greeted(ours)]);
      outcome = await contest({ theirs, ours }, player);
      if (outcome.kind !== 'same') return outcome;
      real.socket.write(writeJson({ execute: 'quit' }));
      if ((await patient(real.exited)) !== 0) return { ...outcome, kind: 'reference-died' };
      await daemon.engine.close();
    }
    const difference = imageDifferences(directory, own, outcome);
    return difference === '' ? outcome : { ...outcome, kind: 'different', difference };
  } finally {
    for (const each of [directory, own]) rmSync(each, { recursive: true, force: true });
  }
}

/** A player of a fixed sequence. */
export function replay(commands: readonly GraphCommand[]): Player {
  let at = 0;
  return () => commands[at++] ?? null;
}
