// SPDX-License-Identifier: Apache-2.0
// `img check`: 0 clean, 1 the check itself failed, 2 corruptions, 3 leaks only, 63 no checks for
// this format. Findings go to standard error, the summary to standard output.

import { BlockError, escapeControls, Permission } from '../../base/index.js';
import type { CheckResult, Node, OpenPolicy } from '../../block/index.js';
import { writeJson } from '../../wire/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { percent } from './numbers.js';
import { attachUser, openImage, sourceCache, withSession } from './session.js';
import type { ImageName, Session } from './session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  OUTPUT,
  outputFormat,
  QUIET,
  readVerbOptions,
  SOURCE_CACHE,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  QUIET,
  FORMAT,
  OUTPUT,
  { name: 'repair', short: 'r', long: 'repair', argument: true },
  SOURCE_CACHE,
  FORCE_SHARE,
];

const STATUS = { clean: 0, failed: 1, corrupt: 2, leaks: 3, unsupported: 63 } as const;

export const check: Verb = {
  options: OPTIONS,
  async run(args, program) {
    let format: string | null = null;
    let output = 'human';
    let cache = 'writeback';
    let repair: 'none' | 'leaks' | 'all' = 'none';
    const flags = new Set<string>();
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name === 'format') format = value;
      else if (name === 'output') output = value;
      else if (name === 'source-cache') cache = value;
      else if (name === 'repair') repair = repairMode(value);
      else flags.add(name);
    });
    const image = oneImage(program, operands, { format, imageOptions: flags.has('image-opts') });
    const shape = outputFormat(output);
    const share = flags.has('share');
    const cachePolicy = sourceCache(cache);
    const quiet = flags.has('quiet');
    return withSession(program, async (session) => {
      const node = await openToCheck(session, { image, repair, policy: cachePolicy, share });
      const run = (mode: typeof repair): Promise<CheckResult> => runCheck(program, node, mode);
      const first = await run(repair);
      const isMended = first.leaksFixed + first.corruptionsFixed > 0;
      if (isMended && shape === 'human' && !quiet) program.out(mendedText(first));
      const { leaksFixed, corruptionsFixed } = first;
      const again = isMended ? await run('none') : first;
      const result = { ...again, leaksFixed, corruptionsFixed };
      if (shape === 'json') program.out(checkJson(result, image.text, node.driver.name));
      else if (!quiet) program.out(checkText(result));
      if (result.checkErrors > 0) throw new CliError('Check failed', STATUS.failed);
      if (result.corruptions > 0) return STATUS.corrupt;
      return result.leaks > 0 ? STATUS.leaks : STATUS.clean;
    });
    function repairMode(value: string): 'leaks' | 'all' {
      if (value === 'leaks' || value === 'all') return value;
      const text = `Unknown option value for -r (expecting 'leaks' or 'all'): ${value}`;
      throw usageError(program, text);
    }
  },
};

interface CheckRequest {
  readonly image: ImageName;
  readonly repair: 'none' | 'leaks' | 'all';
  readonly policy: OpenPolicy;
  readonly share: boolean;
}

/** Without a repair only looked at; with one, used as an image that is written to. */
async function openToCheck(session: Session, request: CheckRequest): Promise<Node> {
  const { image, repair, policy, share } = request;
  if (repair !== 'none' && share) {
    const text = 'force-share=on can only be used with read-only images';
    throw new CliError(`Could not open '${image.text}': ${text}`);
  }
  const readOnly = repair === 'none';
  const how = readOnly ? { inspectOnly: true, forceShare: share } : { repair: true };
  const node = await openImage(session, { image, readOnly, policy: { ...policy, ...how } });
  if (node.driver.supports.check === 'none') {
    // What is wrong with a key is told first.
    if (readOnly && node.info.encrypted === true) {
      await session.graph.close(node);
      await openImage(session, { image, readOnly, policy: { ...policy, forceShare: share } });
    }
    throw new CliError('This image format does not support checks', STATUS.unsupported);
  }
  if (readOnly) return node;
  const { consistentRead, write, resize } = Permission;
  await attachUser(session, { node, name: image.text, taken: consistentRead | write | resize });
  return node;
}

async function runCheck(
  program: Program,
  node: Node,
  mode: 'none' | 'leaks' | 'all',
): Promise<CheckResult> {
  try {
    const result = await node.check(mode);
    for (const line of result.messages) program.err(`${escapeControls(line)}\n`);
    if (result.failure === undefined) return result;
    throw new CliError(`Check failed: ${result.failure}`, STATUS.failed);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Check failed: ${error.message}`, STATUS.failed);
  }
}

function mendedText({ leaksFixed, corruptionsFixed }: CheckResult): string {
  return (
    'The following inconsistencies were found and repaired:\n\n' +
    `    ${leaksFixed} leaked clusters\n    ${corruptionsFixed} corruptions\n\n` +
    'Double checking the fixed image now...\n'
  );
}

const positive = (value: number): number | undefined => (value > 0 ? value : undefined);

export function checkJson(result: CheckResult, filename: string, format: string): string {
  const members = {
    'image-end-offset': positive(result.imageEndOffset),
    'compressed-clusters': positive(result.compressedClusters),
    'total-clusters': positive(result.totalClusters),
    corruptions: positive(result.corruptions),
    'corruptions-fixed': positive(result.corruptionsFixed),
    'check-errors': result.checkErrors,
    leaks: positive(result.leaks),
    'leaks-fixed': positive(result.leaksFixed),
    'allocated-clusters': positive(result.allocatedClusters),
    filename,
    format,
    'fragmented-clusters': positive(result.fragmentedClusters),
  };
  return `${writeJson(members, { pretty: true })}\n`;
}

export function checkText(result: CheckResult): string {
  const { corruptions, leaks, checkErrors, totalClusters: total, allocatedClusters } = result;
  let text = '';
  if (corruptions + leaks + checkErrors === 0) text += 'No errors were found on the image.\n';
  if (corruptions > 0) {
    text += `\n${corruptions} errors were found on the image.\n`;
    text += 'Data may be corrupted, or further writes to the image may corrupt it.\n';
  }
  if (leaks > 0) {
    text += `\n${leaks} leaked clusters were found on the image.\n`;
    text += 'This means waste of disk space, but no harm to data.\n';
  }
  if (checkErrors > 0) {
    text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  }
  if (total > 0 && allocatedClusters > 0) {
    const fragmented = percent(result.fragmentedClusters, allocatedClusters);
    const compressed = percent(result.compressedClusters, allocatedClusters);
    text += `${allocatedClusters}/${total} = ${percent(allocatedClusters, total)}% allocated, `;
    text += `${fragmented}% fragmented, ${compressed}% compressed clusters\n`;
  }
  if (result.imageEndOffset > 0) text += `Image end offset: ${result.imageEndOffset}\n`;
  return text;
}
