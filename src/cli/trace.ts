// SPDX-License-Identifier: Apache-2.0
// -T, --trace: accepted, as scripts pass it; there is nothing to trace here, so that no event has
// the name that is asked for. Patterns pass in silence, as they may match nothing.

import { closeSync, openSync, readFileSync } from 'node:fs';

import { BlockError, errnoText, kindOfErrno } from '../base/index.js';

const PARAMETERS = new Set(['enable', 'events', 'file']);
/** Longest file of event names that is looked at, in lines. */
const MOST_LINES = 10_000;

export interface Listing {
  readonly text: string;
  /** The exit status that it ends the program with. */
  readonly status: number;
}

/** The list of events, or of parameters, where the value asks for it; else null. */
export function traceListing(value: string): Listing | null {
  const [first = '', ...rest] = value.split(',');
  // There is no event to list.
  if (rest.length === 0 && /^(enable=)?(help|\?)$/.test(first)) return { text: '', status: 0 };
  if (!rest.some((item) => item === 'help' || item === '?')) return null;
  return { text: 'trace options:\n  enable=<str>\n  events=<str>\n  file=<str>\n', status: 1 };
}

/** Told what is wrong, and the `FILE` or `FILE:LINE` it is in where it is in a file. */
type Tell = (text: string, place?: string) => void;

/** Tells of each event that is no pattern; false where the file of events cannot be read. */
export function readTrace(value: string, tell: Tell): boolean {
  const given = new Map<string, string>();
  for (const [index, item] of value.split(',').entries()) {
    const equals = item.indexOf('=');
    const isEvent = index === 0 && equals < 0;
    const name = isEvent ? 'enable' : item.slice(0, equals < 0 ? undefined : equals);
    if (!PARAMETERS.has(name)) {
      throw new BlockError('invalid-option', `Invalid parameter '${name}'`);
    }
    given.set(name, isEvent ? item : item.slice(equals + 1));
  }
  const event = given.get('enable');
  if (event !== undefined) warnOf(event, tell);
  const events = given.get('events');
  if (events !== undefined && !readEvents(events, tell)) return false;
  const file = given.get('file');
  if (file !== undefined && file !== '') makeLog(file);
  return true;
}

function warnOf(event: string, tell: (text: string) => void): void {
  const name = event.replace(/^-/, '');
  if (!name.includes('*')) tell(`warning: trace event '${name}' does not exist`);
}

function readEvents(path: string, tell: Tell): boolean {
  let text = '';
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? 'EIO';
    // A folder is read as an empty file.
    if (errno === 'EISDIR') return true;
    tell(errnoText(errno), path);
    return false;
  }
  for (const [index, line] of text.split('\n', MOST_LINES).entries()) {
    if (line === '' || line.startsWith('#')) continue;
    warnOf(line, (message) => tell(message, `${path}:${index + 1}`));
  }
  return true;
}

/** The log is there, and stays empty. */
function makeLog(path: string): void {
  try {
    closeSync(openSync(path, 'w'));
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? 'EIO';
    const text = `Error opening logfile ${path}: ${errnoText(errno)}`;
    throw new BlockError(kindOfErrno(errno), text);
  }
}
