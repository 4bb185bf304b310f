// SPDX-License-Identifier: Apache-2.0
// What a policy for deprecated and unstable things refuses, crashes on and hides.

import { describe, expect, it } from 'vitest';

import {
  ACCEPT_ALL,
  alternate,
  checkInput,
  deferred,
  enumeration,
  int,
  list,
  optional,
  requireAllowed,
  required,
  str,
  struct,
  union,
  visibleOutput,
} from '../../../src/schema/index.js';
import type { CompatPolicy, Type } from '../../../src/schema/index.js';

const old = { features: ['deprecated'] };
const young = { features: ['unstable'] };

const color = enumeration('Color', ['red', 'mauve'], { mauve: old });
const inner = struct('Inner', { 'x-new': optional(int, young), color: optional(color) });
const tree = deferred<unknown>('Tree');
tree.define(
  union('TreeUnion', {
    base: { name: str, former: optional(str, old) },
    discriminator: 'kind',
    tagName: 'TreeKind',
    branches: {
      leaf: null,
      node: struct('TreeNode', { children: list(alternate('Ref', { name: str, it: tree })) }),
      other: inner,
    },
  }),
);

function policy(part: Partial<CompatPolicy>): CompatPolicy {
  return { ...ACCEPT_ALL, ...part };
}

function refusal(part: Partial<CompatPolicy>, type: Type, value: unknown): string | null {
  try {
    checkInput(policy(part), type, value);
    return null;
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
}

describe('a policy for what is marked', () => {
  const reject = { deprecatedInput: 'reject', unstableInput: 'reject' } as const;

  it('accepts everything unless it is told otherwise', () => {
    const all = { name: 'a', kind: 'other', former: 'x', 'x-new': 1, color: 'mauve' };
    expect(refusal({}, tree, all)).toBeNull();
    expect(visibleOutput(ACCEPT_ALL, tree, all)).toBe(all);
  });

  it.each([
    [{ name: 'a', kind: 'leaf', former: 'x' }, 'Deprecated parameter former'],
    [{ name: 'a', kind: 'other', 'x-new': 1 }, 'Unstable parameter x-new'],
    [{ name: 'a', kind: 'other', color: 'mauve' }, 'Deprecated value mauve'],
    [
      { name: 'a', kind: 'node', children: ['n', { name: 'b', kind: 'leaf', former: '' }] },
      'Deprecated parameter former',
    ],
  ])('refuses %j', (value, what) => {
    expect(refusal(reject, tree, value)).toBe(`BlockError: ${what} disabled by policy`);
  });

  it('lets what is not marked pass', () => {
    const value = { name: 'a', kind: 'node', children: ['n', { name: 'b', kind: 'leaf' }] };
    expect(refusal(reject, tree, value)).toBeNull();
    expect(refusal(reject, inner, { color: 'red' })).toBeNull();
  });

  it('tells deprecated from unstable', () => {
    const value = { name: 'a', kind: 'other', former: 'x', 'x-new': 1 };
    expect(refusal({ deprecatedInput: 'reject' }, tree, value)).toContain('former');
    expect(refusal({ unstableInput: 'reject' }, tree, value)).toContain('x-new');
  });

  it('ends the program where it says so', () => {
    const value = { name: 'a', kind: 'leaf', former: 'x' };
    expect(refusal({ deprecatedInput: 'crash' }, tree, value)).toMatch(/^AssertionFailure: /);
  });

  it('says of a command that it is not there', () => {
    const command = { kind: 'command', name: 'x-go', features: ['unstable'] } as const;
    expect(() => requireAllowed(policy(reject), command)).toThrow(
      expect.objectContaining({
        qmpClass: 'CommandNotFound',
        message: 'Unstable command x-go disabled by policy',
      }),
    );
    expect(() => requireAllowed(policy({ deprecatedInput: 'reject' }), command)).not.toThrow();
  });

  it('hides marked members, however deep, and nothing else', () => {
    const result = struct('Result', {
      values: required(list(str), old),
      parts: list(inner),
      tree: optional(tree),
    });
    const value = {
      values: ['a'],
      parts: [{ 'x-new': 1, color: 'mauve', extra: 1 }],
      tree: { name: 'a', kind: 'other', former: 'x', 'x-new': 2 },
    };
    const hide = policy({ deprecatedOutput: 'hide' });
    expect(visibleOutput(hide, result, value)).toEqual({
      parts: [{ 'x-new': 1, color: 'mauve', extra: 1 }],
      tree: { name: 'a', kind: 'other', 'x-new': 2 },
    });
    expect(visibleOutput(policy({ unstableOutput: 'hide' }), list(result), [value])).toEqual([
      {
        values: ['a'],
        parts: [{ color: 'mauve', extra: 1 }],
        tree: { name: 'a', kind: 'other', former: 'x' },
      },
    ]);
  });
});
