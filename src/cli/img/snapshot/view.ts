// SPDX-License-Identifier: Apache-2.0
// An image read as one of its snapshots (-l of convert and measure): a name or ID, or
// `snapshot.id=…,snapshot.name=…`, of which all that is given must agree.

import { BlockError } from '../../../base/index.js';
import { internalSnapshotsOf } from '../../../block/index.js';
import type { Node, SnapshotFacts } from '../../../block/index.js';
import { CliError, report } from '../../program.js';
import type { Program } from '../../program.js';
import { splitCommas } from '../create/options.js';

/** Which snapshot is meant: by what it says, or by one word that is an ID or else a name. */
export interface SnapshotChoice {
  readonly word?: string;
  readonly id?: string;
  readonly name?: string;
}

export function snapshotChoice(text: string, program: Program): SnapshotChoice {
  if (!text.startsWith('snapshot.')) return { word: text };
  const choice: { id?: string; name?: string } = {};
  for (const piece of splitCommas(text)) {
    const [name = '', ...value] = piece.split('=');
    if (name === 'snapshot.id') choice.id = value.join('=');
    else if (name === 'snapshot.name') choice.name = value.join('=');
    else {
      if (value.length === 0) {
        const hint = `Please use ${name}=on instead\n`;
        report(program, `warning: short-form boolean option '${name}' deprecated`, hint);
      }
      const second = `${program.name}: Failed in parsing snapshot param '${text}'\n`;
      throw new CliError(`Invalid parameter '${name}'`, 1, second);
    }
  }
  return choice;
}

/** Reads of the node show the snapshot from now on. */
export async function showSnapshot(node: Node, choice: SnapshotChoice): Promise<void> {
  const snapshots = internalSnapshotsOf(node);
  if (snapshots === null) {
    throw failed(
      `Block format '${node.driver.name}' used by device '' does not support temporarily ` +
        'loading internal snapshots',
    );
  }
  if (choice.word === undefined && choice.id === undefined && choice.name === undefined) {
    throw failed('snapshot_id and name are both NULL');
  }
  const found = find(snapshots.list(), choice);
  if (found === undefined) throw failed("Can't find snapshot");
  try {
    await snapshots.show(found);
  } catch (error) {
    if (error instanceof BlockError) throw failed(error.message);
    throw error;
  }
}

function find(
  all: readonly SnapshotFacts[],
  { word, id, name }: SnapshotChoice,
): SnapshotFacts | undefined {
  if (word !== undefined) {
    return all.find((each) => each.id === word) ?? all.find((each) => each.name === word);
  }
  return all.find(
    (each) => (id ?? each.id) === each.id && (name ?? each.name) === each.name,
  );
}

function failed(reason: string): CliError {
  return new CliError(`Failed to load snapshot: ${reason}`);
}
