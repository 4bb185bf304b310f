// SPDX-License-Identifier: Apache-2.0
// `img check`: 0 clean, 1 the check itself failed, 2 corruptions, 3 leaks only, 63 no checks for
// this format. Findings go to standard error, the summary to standard output.

import { BlockError, escapeControls } from '../../base/index.js';
import type { CheckResult, OpenPolicy } from '../../block/index.js';
import { writeJson } from '../../wire/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import { percent } from './numbers.js';
import { openImage, sourceCache, withSession } from './session.js';
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
  options: OPTIONS.filter(({ name }) => name !== 'repair'),
  async run(args, program) {
    let format: string | null = null;
    let output = 'human';
    let cache = 'writeback';
    const flags = new Set<string>();
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name === 'format') format = value;
      else if (name === 'output') output = value;
      else if (name === 'source-cache') cache = value;
      else if (name === 'repair') throw refuseRepair(value);
      else flags.add(name);
    });
    const image = oneImage(program, operands, { format, imageOptions: flags.has('image-opts') });
    const shape = outputFormat(output);
    const share: OpenPolicy = { inspectOnly: true, forceShare: flags.has('share') };
    const policy = { ...sourceCache(cache), ...share };
    return withSession(program, async (session) => {
      const node = await openImage(session, { image, readOnly: true, policy });
      if (node.driver.supports.check === 'none') {
        throw new CliError('This image format does not support checks', STATUS.unsupported);
      }
      const result = await runCheck(() => node.check('none'));
      for (const line of result.messages) program.err(`${escapeControls(line)}\n`);
      const name = node.filename === '' ? image.text : node.filename;
      if (shape === 'json') program.out(checkJson(result, name, node.driver.name));
      else if (!flags.has('quiet')) program.out(checkText(result));
      if (result.checkErrors > 0) throw new CliError('Check failed', STATUS.failed);
      if (result.corruptions > 0) return STATUS.corrupt;
      return result.leaks > 0 ? STATUS.leaks : STATUS.clean;
    });
    function refuseRepair(value: string): CliError {
      if (value === 'leaks' || value === 'all') {
        return new CliError(`option '-r ${value}' (repair) is not supported`);
      }
      const text = `Unknown option value for -r (expecting 'leaks' or 'all'): ${value}`;
      return usageError(program, text);
    }
  },
};

async function runCheck(run: () => Promise<CheckResult>): Promise<CheckResult> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Check failed: ${error.message}`, STATUS.failed);
  }
}

const positive = (value: number): number | undefined => (value > 0 ? value : undefined);

export function checkJson(result: CheckResult, filename: string, format: string): string {
  const members = {
    'image-end-offset': positive(result.imageEndOffset),
    'compressed-clusters': positive(result.compressedClusters),
    'total-clusters': positive(result.totalClusters),
    corruptions: positive(result.corruptions),
    'check-errors': result.checkErrors,
    leaks: positive(result.leaks),
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
