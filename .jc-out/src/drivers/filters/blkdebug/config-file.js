// SPDX-License-Identifier: Apache-2.0
// The file of rules that `config` names: sections `[inject-error]` and `[set-state]`, each with
// lines `name = "value"`.
//
// Read by the line, as forgiving as the files in use need it: what follows a value is not looked
// at, a value without quotes is empty. A line whose first character is `#` is a comment, an empty
// line is skipped. Numbers are decimal, octal or hexadecimal, of 64 bits, cut to 32 where the
// options have that width.
import { BlockError, BLKDEBUG_LIMITS, errnoText } from '../../../base/index.js';
import { blkdebugEvent, blkdebugIoType } from './options.js';
const SECTIONS = {
    'inject-error': {
        event: 'string',
        state: 'int32',
        iotype: 'string',
        errno: 'int32',
        sector: 'int64',
        once: 'bool',
        immediately: 'bool',
    },
    'set-state': { event: 'string', state: 'int32', new_state: 'int32' },
};
/** Errors name the reason only, as those of options do; unreadable files are named. */
export async function readConfig(host, path) {
    const found = await host.stat(path);
    if (found === null) {
        const text = `Could not read blkdebug config file: ${errnoText('ENOENT')}`;
        throw new BlockError('not-found', text, { path });
    }
    if (found.kind === 'directory') {
        throw invalid(`Cannot read config file: ${errnoText('EISDIR')}`);
    }
    const file = await host.openFile(path, { readOnly: true });
    try {
        const size = file.size();
        if (size > BLKDEBUG_LIMITS.configBytes) {
            const text = `blkdebug config file '${path}' is larger than ${BLKDEBUG_LIMITS.configBytes}`;
            throw new BlockError('too-large', text, { path });
        }
        const bytes = new Uint8Array(size);
        const length = await file.read(bytes, 0);
        return parseConfig(Buffer.from(bytes.buffer, 0, length).toString('latin1'));
    }
    finally {
        await file.close();
    }
}
export function parseConfig(text) {
    const sections = sectionsOf(text);
    const of = (name) => sections.filter((section) => section.name === name).map(({ members }) => members);
    return {
        'inject-error': of('inject-error').map(injectErrorOf),
        'set-state': of('set-state').map(setStateOf),
    };
}
function sectionsOf(text) {
    const sections = [];
    const ids = new Set();
    for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
        if (line === '\n' || line.startsWith('#'))
            continue;
        const title = titleOf(line);
        if (title !== null) {
            const name = sectionName(title.name);
            if (title.id !== null)
                claim(ids, name, title.id);
            sections.push({ name, members: new Map() });
            continue;
        }
        const key = /^\s*(\S{1,63})/.exec(line);
        if (key === null)
            throw invalid('parse error');
        const section = sections.at(-1);
        if (section === undefined)
            throw invalid('no group defined');
        const value = /^\s*=\s*"([^"]{1,1023})/.exec(line.slice(key[0].length))?.[1] ?? '';
        setMember(section, key[1] ?? '', value);
    }
    return sections;
}
function titleOf(line) {
    const named = /^\[\s*(\S{1,63})\s+"([^"]{1,63})/.exec(line);
    if (named !== null)
        return { name: named[1] ?? '', id: named[2] ?? '' };
    const plain = /^\[([^\]]{1,63})/.exec(line);
    return plain === null ? null : { name: plain[1] ?? '', id: null };
}
function sectionName(name) {
    if (Object.hasOwn(SECTIONS, name))
        return name;
    throw invalid(`There is no option group '${name}'`);
}
function claim(ids, name, id) {
    if (!/^[A-Za-z][-A-Za-z0-9._]*$/.test(id)) {
        throw new BlockError('invalid-option', "Parameter 'id' expects an identifier", {
            hint: "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
        });
    }
    if (ids.has(`${name} ${id}`))
        throw invalid(`Duplicate ID '${id}' for ${name}`);
    ids.add(`${name} ${id}`);
}
function setMember(section, key, text) {
    const kinds = SECTIONS[section.name];
    const kind = Object.hasOwn(kinds, key) ? kinds[key] : undefined;
    if (kind === undefined)
        throw invalid(`Invalid parameter '${key}'`);
    section.members.set(key, valueOf(key, kind, text));
}
function valueOf(key, kind, text) {
    switch (kind) {
        case 'string':
            return text;
        case 'bool':
            if (/^(?:on|yes|true|y)$/.test(text))
                return true;
            if (/^(?:off|no|false|n)$/.test(text))
                return false;
            throw invalid(`Parameter '${key}' expects 'on' or 'off'`);
        default:
            return BigInt.asIntN(kind === 'int32' ? 32 : 64, numberOf(key, text));
    }
}
function numberOf(key, text) {
    const found = /^\s*([+-]?)(0[xX][\da-fA-F]+|0[0-7]*|[1-9]\d*)$/.exec(text);
    if (found === null)
        throw invalid(`Parameter '${key}' expects a number`);
    const [, sign, digits = '0'] = found;
    const octal = /^0[0-7]+$/.test(digits);
    const value = BigInt(octal ? `0o${digits.slice(1)}` : digits);
    if (value >= 1n << 64n)
        throw invalid(`Value '${text}' is too large for parameter '${key}'`);
    return sign === '-' ? -value : value;
}
function injectErrorOf(members) {
    const event = eventOf(members);
    const ioType = members.get('iotype');
    if (ioType !== undefined && !isOneOf(ioType, blkdebugIoType.values)) {
        throw invalid(`invalid parameter value: ${String(ioType)}`);
    }
    const rest = Object.fromEntries(members);
    return { ...rest, event };
}
function setStateOf(members) {
    const event = eventOf(members);
    return { new_state: 0, ...Object.fromEntries(members), event };
}
function eventOf(members) {
    const event = members.get('event');
    if (event === undefined)
        throw invalid('Missing event name for rule');
    if (isOneOf(event, blkdebugEvent.values))
        return event;
    throw invalid(`invalid parameter value: ${String(event)}`);
}
function isOneOf(value, values) {
    return values.includes(value);
}
function invalid(message) {
    return new BlockError('invalid-option', message);
}
