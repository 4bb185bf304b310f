// SPDX-License-Identifier: Apache-2.0
// `img luks dump`: what the header says. It needs no secret, and shows none.

import { escapeControls } from '../../../base/index.js';
import { writeJson } from '../../../wire/index.js';
import { outPieces } from '../../program.js';
import { withSession } from '../session.js';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, outputFormat } from '../verb.js';
import { findHeader, readArguments } from './command.js';
import type { FoundHeader, LuksCommand } from './command.js';
import { luks1Facts, luks2Facts } from './facts.js';
import type { Facts } from './facts.js';
import { openHeaderPlace } from './place.js';
import { luks1Text, luks2Text } from './text.js';

const OPTIONS = [OBJECT, IMAGE_OPTS, FORMAT, OUTPUT, FORCE_SHARE] as const;

export const dumpCommand: LuksCommand = {
  options: OPTIONS,
  operands: 'FILE',
  async run(args, program) {
    const { image, given } = readArguments(program, args, { specs: OPTIONS, operands: 1 });
    const shape = outputFormat(given.get('output') ?? 'human');
    return withSession(program, async (session) => {
      const forceShare = given.has('share');
      const place = await openHeaderPlace(session, { image, readOnly: true, forceShare });
      const found = await findHeader(place);
      if (shape === 'json') {
        const facts = { filename: image.text, ...factsOf(found) };
        program.out(`${writeJson(facts, { pretty: true })}\n`);
      } else {
        await outPieces(program, textOf(found, image.text));
      }
      return 0;
    });
  },
};

function factsOf(found: FoundHeader): Facts {
  return found.version === 1 ? luks1Facts(found.header) : luks2Facts(found.header);
}

function textOf(found: FoundHeader, name: string): string[] {
  const escaped = escapeControls(name);
  const lines = found.version === 1 ? luks1Text(found.header, escaped) : luks2Text(found.header);
  return lines.map((line) => `${line}\n`);
}
