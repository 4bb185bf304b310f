// SPDX-License-Identifier: Apache-2.0
// `img luks COMMAND`: looks at the LUKS header of an image, tries a password at it, keeps a copy
// of it and puts it back. The reference has nothing of the kind.
//
// Exit status: 0 done, 1 refused or failed, and of test-passphrase 2 where the password is wrong.

import type { Program } from '../../program.js';
import { HelpWanted, usageError } from '../verb.js';
import type { Verb } from '../verb.js';
import { backupCommand } from './backup.js';
import type { LuksCommand } from './command.js';
import { dumpCommand } from './dump.js';
import { restoreCommand } from './restore.js';
import { testCommand } from './test-passphrase.js';

const COMMANDS: Readonly<Record<string, LuksCommand>> = {
  dump: dumpCommand,
  'test-passphrase': testCommand,
  'header-backup': backupCommand,
  'header-restore': restoreCommand,
};

export const luks: Verb = {
  options: [],
  commands: COMMANDS,
  run(args, program) {
    const [name, ...rest] = args;
    if (name === '-h' || name === '--help') throw new HelpWanted();
    return commandOf(program, name).run(rest, program);
  },
};

function commandOf(program: Program, name: string | undefined): LuksCommand {
  const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  const known = Object.keys(COMMANDS).join(', ');
  const what = name === undefined ? 'Expecting a command' : `Command not found: luks ${name}`;
  throw usageError(program, `${what}; there are ${known}`);
}
