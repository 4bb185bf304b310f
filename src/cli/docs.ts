// SPDX-License-Identifier: Apache-2.0
// `blockwright docs DIR`: the reference as Markdown pages, from the declarations and the help of
// the command lines, so that nothing stands there which this program does not have.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commands, events, memberDocs, typeDocs } from '../api/index.js';
import { driverCreateOptions, driverOptions } from '../drivers/options-catalog.js';
import { anchorOf, collectTypes, Reference } from '../schema/index.js';
import type { CommandDeclaration, NamedType } from '../schema/index.js';
import { CliError, reportFailure } from './program.js';
import type { Program } from './program.js';
import { USAGE } from './usage.js';

/** Commands that start a job; `transaction` may hold some of them too. */
const JOB_COMMANDS: readonly string[] = [...commands.values()]
  .filter(({ args }) => args.kind === 'struct' && 'job-id' in args.members)
  .map(({ name }) => name);

export interface Manual {
  /** Texts by the words that print them. */
  readonly helps: ReadonlyMap<string, string>;
}

export async function runDocs(args: readonly string[], program: Program): Promise<number> {
  const [directory] = args;
  if (directory === '-h' || directory === '--help') {
    program.out('usage: blockwright docs DIR\nWrites the reference pages into DIR.\n');
    return 0;
  }
  try {
    if (directory === undefined || args.length !== 1 || directory.startsWith('-')) {
      throw new CliError('Expecting one directory');
    }
    const pages = referencePages(await manual());
    mkdirSync(directory, { recursive: true });
    for (const [name, text] of pages) writeFileSync(join(directory, name), text);
    program.out(`${pages.size} pages written to ${directory}\n`);
    return 0;
  } catch (error) {
    const isHost = error instanceof Error && 'code' in error;
    return reportFailure(program, isHost ? new CliError(error.message) : error);
  }
}

/** What the command lines say of themselves. */
export async function manual(): Promise<Manual> {
  const helps = new Map<string, string>();
  const heard = async (
    words: string,
    run: (args: readonly string[], program: Program) => Promise<number>,
  ): Promise<void> => {
    let text = '';
    const out = (more: string): void => void (text += more);
    await run(['--help'], { name: words, out, err: out, terminal: false });
    helps.set(words, text);
  };
  helps.set('blockwright', USAGE);
  const { runImg } = await import('./img/index.js');
  await heard('blockwright img', runImg);
  const { runStorageDaemon } = await import('./storage-daemon/index.js');
  await heard('blockwright storage-daemon', runStorageDaemon);
  await heard('blockwright docs', runDocs);
  return { helps };
}

/** Pages by their file names. The same input gives the same text. */
export function referencePages({ helps }: Manual): ReadonlyMap<string, string> {
  const types = collectTypes([...commands.values(), ...events.values()]);
  const reference = referenceOf(types);
  const sections = {
    'commands.md': [...commands.values()].map((one) => [one.name, reference.command(one)] as const),
    'events.md': [...events.values()].map((one) => [one.name, reference.event(one)] as const),
    'types.md': [...types.values()].map((one) => [one.name, reference.type(one)] as const),
  };
  return new Map([
    ['README.md', INDEX],
    ['commands.md', page('QMP commands', COMMANDS_INTRO, sections['commands.md'])],
    ['events.md', page('QMP events', EVENTS_INTRO, sections['events.md'])],
    ['types.md', page('Types', TYPES_INTRO, sections['types.md'])],
    ['drivers.md', driversPage(reference)],
    ['jobs.md', jobsPage(reference)],
    ['command-line.md', commandLinePage(helps)],
  ]);
}

/** Links lead to the section of a type, or of the command whose arguments it is. */
export function referenceOf(types: ReadonlyMap<string, NamedType>): Reference {
  return new Reference({ types: typeDocs, members: memberDocs }, (name) => {
    return `${types.has(name) ? 'types.md' : 'commands.md'}#${anchorOf(name)}`;
  });
}

const INDEX = `# Blockwright reference

Made from the declarations that the program runs by.

- [QMP commands](commands.md)
- [QMP events](events.md)
- [Types](types.md) of their members
- [Drivers](drivers.md) and their options
- [Jobs](jobs.md): how they are started, and what can be asked of them
- [Command lines](command-line.md)
`;

const COMMANDS_INTRO = `Commands of the QMP server. Sizes and offsets are bytes. A command without
a result returns an empty object. Versions are those of QEMU in which a thing first appeared.`;

const EVENTS_INTRO = `Events go to every client that has negotiated.`;

const TYPES_INTRO = `Types of the members of commands and events.`;

function page(
  title: string,
  intro: string,
  sections: readonly (readonly [heading: string, text: string])[],
): string {
  const list = sections.map(([name]) => `- [${name}](#${anchorOf(name)})`).join('\n');
  return `# ${title}\n\n${intro}\n\n${list}\n\n${sections.map(([, text]) => text).join('\n')}`;
}

function driversPage(reference: Reference): string {
  const created: Readonly<Record<string, NamedType>> = driverCreateOptions;
  const sections = Object.entries(driverOptions).map(([name, type]) => {
    const lines = [`### ${name}`, '', reference.typeText(type), ''];
    lines.push(...optionLines(reference, type));
    const create = created[name];
    if (create !== undefined) {
      lines.push('Creating (`blockdev-create`):', '', ...optionLines(reference, create));
    }
    return [name, lines.join('\n').trimEnd() + '\n'] as const;
  });
  const intro = `Options of each driver, beside those that
[every node](types.md#blockdevoptions) has. A driver is chosen by \`driver\` of
[blockdev-add](commands.md#blockdev-add).`;
  return page('Drivers', intro, sections);
}

function optionLines(reference: Reference, type: NamedType): string[] {
  return type.kind === 'struct' ? reference.table(type.members, type.name) : [];
}

const VERBS: readonly string[] = [
  'job-pause', 'job-resume', 'job-cancel', 'job-complete', 'job-finalize', 'job-dismiss',
  'block-job-set-speed', 'query-jobs', 'query-block-jobs',
];

function linkTo(command: CommandDeclaration | undefined): string {
  if (command === undefined) return '';
  return `- [${command.name}](commands.md#${anchorOf(command.name)}): ${command.doc}`;
}

function jobsPage(reference: Reference): string {
  const sections = JOB_COMMANDS.map((name) => {
    const { args, doc } = commands.get(name) as CommandDeclaration;
    const options = args.kind === 'struct' ? reference.table(args.members, name) : [];
    return [name, [`### ${name}`, '', doc, '', ...options].join('\n').trimEnd() + '\n'] as const;
  });
  const verbs = VERBS.map((name) => linkTo(commands.get(name))).filter((line) => line !== '');
  const intro = `A job is started by one of the commands below, goes through its
[states](types.md#jobstatus), and tells each by the event
[JOB_STATUS_CHANGE](events.md#job_status_change). What can be asked of it:

${verbs.join('\n')}

Commands that start jobs:`;
  return page('Jobs', intro, sections);
}

function commandLinePage(helps: Manual['helps']): string {
  const sections = [...helps].map(
    ([words, text]) => [words, `### ${words}\n\n\`\`\`\n${text.trimEnd()}\n\`\`\`\n`] as const,
  );
  return page('Command lines', 'Their help.', sections);
}
