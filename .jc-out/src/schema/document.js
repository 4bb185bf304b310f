// SPDX-License-Identifier: Apache-2.0
// Reference text in Markdown, made from declarations: commands, events, types, tables of members.
//
// Every named type has a section of its own, which all mentions link to. A text comes from the
// declaration's own facts; where it has none, from the tables given (`OWNER.MEMBER` before
// `MEMBER`). Output depends on the input alone.
import { memberOf, resolveType } from './types.js';
/** The heading's anchor, as Markdown renderers make it. */
export function anchorOf(heading) {
    return heading.toLowerCase().replaceAll(/[^a-z0-9_ -]/g, '').replaceAll(' ', '-');
}
/** Every named type that declarations lead to, by name, in order of names; arguments left out. */
export function collectTypes(declarations) {
    const found = new Map();
    const members = (entries) => {
        for (const entry of Object.values(entries))
            visit(memberOf(entry).type);
    };
    const visit = (type) => {
        const target = resolveType(type);
        if (target.kind === 'list')
            return visit(target.element);
        if (!isNamed(target) || found.has(target.name))
            return undefined;
        found.set(target.name, target);
        return inside(target);
    };
    const inside = (type) => {
        if (type.kind === 'struct')
            members(type.members);
        if (type.kind === 'alternate')
            Object.values(type.branches).forEach(visit);
        if (type.kind !== 'union')
            return;
        members(type.base);
        for (const branch of Object.values(type.branches()))
            if (branch !== null)
                visit(branch);
    };
    for (const declaration of declarations) {
        if (declaration.declares === 'event') {
            inside(declaration.data);
            continue;
        }
        if (isOwn(declaration))
            inside(declaration.args);
        else
            visit(declaration.args);
        if (declaration.returns !== null)
            visit(declaration.returns);
    }
    return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}
function isNamed(type) {
    return ['enum', 'struct', 'union', 'alternate'].includes(type.kind);
}
/** Its arguments have no name but the command's. */
function isOwn({ name, args }) {
    return args.kind === 'struct' && args.name === `${name}-arg`;
}
export class Reference {
    #texts;
    #link;
    /** Keys of the tables that were used. */
    used = new Set();
    constructor(texts, link) {
        this.#texts = texts;
        this.#link = link;
    }
    command(declaration) {
        const { name, returns, args } = declaration;
        const notes = [
            since(declaration.since),
            ...declaration.features.map((feature) => `**${feature}**`),
            ...(declaration.allowOob ? ['may run out of band'] : []),
        ];
        const own = isOwn(declaration) || args.kind === 'struct';
        const given = own ? this.#body(args, name) : [`Arguments: ${this.typeName(args)}.`, ''];
        const result = returns === null ? [] : [`Returns ${this.typeName(returns)}.`, ''];
        return section(name, [declaration.doc, '', `${notes.join('; ')}.`, '', ...given, ...result]);
    }
    event(declaration) {
        const { name, doc, data } = declaration;
        return section(name, [doc, '', `${since(declaration.since)}.`, '', ...this.#body(data, name)]);
    }
    type(type) {
        return section(type.name, [this.typeText(type), '', ...this.#body(type, type.name)]);
    }
    /** Empty when nobody wrote one. */
    typeText(type) {
        const own = 'facts' in type && type.kind !== 'enum' ? type.facts.doc : undefined;
        return own ?? this.#texts.types[type.name] ?? this.#wrapperText(type);
    }
    /** What only wraps arguments needs no text of its own. */
    #wrapperText(type) {
        if (type.kind !== 'struct' || Object.keys(type.members).join(' ') !== 'data')
            return '';
        const { data } = type.members;
        return data === undefined ? '' : `Its \`data\` is ${this.typeName(memberOf(data).type)}.`;
    }
    /** Members of a struct, or of a union with its branches; values of an enumeration. */
    #body(type, owner) {
        switch (type.kind) {
            case 'enum':
                return this.#values(type);
            case 'struct':
                return this.table(type.members, owner);
            case 'union':
                return [...this.table(this.#common(type), owner), ...this.#branches(type)];
            default:
                return [
                    'One of:', '',
                    ...Object.values(type.branches).map((branch) => `- ${this.typeName(branch)}`), '',
                ];
        }
    }
    #common(type) {
        const values = Object.keys(type.branches());
        const tag = { kind: 'enum', name: type.tagName, values, facts: {} };
        return { [type.discriminator]: tag, ...type.base };
    }
    #branches(type) {
        const lines = Object.entries(type.branches()).map(([value, branch]) => {
            const what = branch === null ? 'no more members' : `members of ${this.typeName(branch)}`;
            return `- \`${type.discriminator}\` is \`${value}\`: ${what}`;
        });
        return [...lines, ''];
    }
    #values(type) {
        const lines = type.values.map((value) => {
            const facts = type.facts[value] ?? {};
            const text = facts.doc ?? this.#text(type.name, value)?.doc;
            const notes = (facts.features ?? []).map((feature) => ` **${feature}**`).join('');
            return `- \`${value}\`${notes}${text === undefined ? '' : `: ${text}`}`;
        });
        return [...lines, ''];
    }
    /** A table of members; nothing for none. */
    table(members, owner) {
        const rows = Object.entries(members).map(([name, entry]) => {
            const member = memberOf(entry);
            const text = this.#memberText(owner, name, member);
            const cells = [`\`${name}\``, this.typeName(member.type), text];
            return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
        });
        if (rows.length === 0)
            return [];
        return ['| member | type | |', '|---|---|---|', ...rows, ''];
    }
    #memberText(owner, name, { optional, facts }) {
        const text = this.#text(owner, name);
        const standard = optional ? (text?.default ?? null) : null;
        const parts = [
            ...(optional ? ['Optional.'] : []),
            ...(facts.features ?? []).map((feature) => `**${feature}**.`),
            ...(facts.since === undefined ? [] : [`${since(facts.since)}.`]),
            facts.doc ?? text?.doc ?? '',
            ...(standard === null ? [] : [`Default: ${standard}.`]),
        ];
        return parts.filter((part) => part !== '').join(' ');
    }
    #text(owner, name) {
        for (const key of [`${owner}.${name}`, name]) {
            const text = Object.hasOwn(this.#texts.members, key) ? this.#texts.members[key] : undefined;
            if (text === undefined)
                continue;
            this.used.add(key);
            return text;
        }
        return undefined;
    }
    /** A type in text; named ones as links. */
    typeName(type) {
        switch (type.kind) {
            case 'list':
                return `list of ${this.typeName(type.element)}`;
            case 'str':
                return 'string';
            case 'bool':
                return 'boolean';
            case 'int':
                return type.name;
            case 'number':
            case 'any':
            case 'null':
                return type.kind;
            case 'enum':
                // The tag of a union: its values are the branches.
                return type.name in this.#texts.types ? this.#linked(type.name) : 'one of those below';
            default:
                return this.#linked(type.name);
        }
    }
    #linked(name) {
        return `[${name}](${this.#link(name)})`;
    }
}
function since(version) {
    return version === '' ? 'Since the beginning' : `Since ${version}`;
}
function section(heading, lines) {
    return [`### ${heading}`, '', ...lines].join('\n').trimEnd() + '\n';
}
