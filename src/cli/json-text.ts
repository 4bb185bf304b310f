// SPDX-License-Identifier: Apache-2.0
// JSON as the reference prints it: indented by 4, one member a line, ASCII only with upper-case
// escapes, and members in the order in which they are given here.

export function jsonText(value: unknown, depth = 0): string {
  if (typeof value === 'string') return jsonString(value);
  if (Array.isArray(value)) {
    return block('[', value.map((item) => jsonText(item, depth + 1)), ']', depth);
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => `${jsonString(key)}: ${jsonText(member, depth + 1)}`);
    return block('{', members, '}', depth);
  }
  return String(value);
}

function block(open: string, items: readonly string[], ...end: [string, number]): string {
  const [close, depth] = end;
  const indent = '    '.repeat(depth);
  if (items.length === 0) return `${open}\n${indent}${close}`;
  return `${open}\n${items.map((item) => `${indent}    ${item}`).join(',\n')}\n${indent}${close}`;
}

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

export function jsonString(text: string): string {
  let result = '"';
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at] ?? '';
    const code = text.charCodeAt(at);
    const plain = code >= 0x20 && code < 0x7f;
    const hex = code.toString(16).toUpperCase().padStart(4, '0');
    result += SHORT[character] ?? (plain ? character : `\\u${hex}`);
  }
  return `${result}"`;
}
