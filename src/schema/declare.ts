// SPDX-License-Identifier: Apache-2.0
// Declarations of commands and events: pure data that servers, clients and documents share.

import type { Facts, Infer, InferMembers, Members, Type } from './types.js';
import { struct } from './types.js';
import type { StructType, UnionType } from './types.js';

export interface CommandDeclaration<N extends string = string, A = unknown, R = unknown> {
  readonly declares: 'command';
  readonly name: N;
  readonly since: string;
  readonly doc: string;
  readonly args: StructType<A> | UnionType<A>;
  /** Null: the command gives an empty object. */
  readonly returns: Type<R> | null;
  readonly features: readonly string[];
  /** May run out of band, before commands that were issued earlier. */
  readonly allowOob: boolean;
}

type ArgsOf<M> = M extends StructType | UnionType ? Infer<M> : InferMembers<M>;
type ReturnOf<R> = R extends Type ? Infer<R> : Record<string, never>;

interface CommandOptions<N extends string, M, R> extends Facts {
  readonly name: N;
  readonly since: string;
  readonly doc: string;
  /** Members, or a struct or union that is the whole of the arguments. */
  readonly args?: M;
  readonly returns?: R;
  readonly allowOob?: boolean;
}

export function command<
  const N extends string,
  const M extends Members | StructType | UnionType = Record<never, never>,
  const R extends Type | null = null,
>(options: CommandOptions<N, M, R>): CommandDeclaration<N, ArgsOf<M>, ReturnOf<R>> {
  return {
    declares: 'command',
    name: options.name,
    since: options.since,
    doc: options.doc,
    args: argumentType(options.name, options.args) as StructType<ArgsOf<M>>,
    returns: (options.returns ?? null) as Type<ReturnOf<R>> | null,
    features: options.features ?? [],
    allowOob: options.allowOob ?? false,
  };
}

function argumentType(
  name: string,
  args: Members | StructType | UnionType | undefined,
): StructType | UnionType {
  if (args === undefined) return struct(`${name}-arg`, {});
  if (isWhole(args)) return args;
  return struct(`${name}-arg`, args);
}

function isWhole(args: Members | StructType | UnionType): args is StructType | UnionType {
  return typeof args['kind'] === 'string';
}

export interface EventDeclaration<N extends string = string, D = unknown> {
  readonly declares: 'event';
  readonly name: N;
  readonly since: string;
  readonly doc: string;
  readonly data: StructType<D>;
}

export function event<const N extends string, const M extends Members>(options: {
  readonly name: N;
  readonly since?: string;
  readonly doc?: string;
  readonly data: M;
}): EventDeclaration<N, InferMembers<M>> {
  return {
    declares: 'event',
    name: options.name,
    since: options.since ?? '',
    doc: options.doc ?? '',
    data: struct(`${options.name}-arg`, options.data) as StructType<InferMembers<M>>,
  };
}

export type ArgumentsOf<C> = C extends CommandDeclaration<string, infer A, unknown> ? A : never;
export type ResultOf<C> = C extends CommandDeclaration<string, unknown, infer R> ? R : never;
export type DataOf<E> = E extends EventDeclaration<string, infer D> ? D : never;
