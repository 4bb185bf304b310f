// SPDX-License-Identifier: Apache-2.0
// The schema language: types as plain data, from which static types, validation, command-line
// parsing, introspection and documentation are derived. It knows no command and no driver.
//
// A type is an object with a `kind`; constructors below are the only way to make one. The static
// type it stands for is `Infer<typeof x>`. A union may name its branches lazily (a function), and a
// recursive type is made with deferred(), defined once when all its parts exist.

import { assert, must } from '../base/index.js';

declare const INFER: unique symbol;

interface Typed<T> {
  readonly [INFER]?: T;
}

export type Feature = 'deprecated' | 'unstable' | (string & {});

/** Facts of a member, an enumeration value or a command that do not change its meaning. */
export interface Facts {
  readonly doc?: string;
  readonly since?: string;
  readonly features?: readonly Feature[];
}

export interface StrType extends Typed<string> {
  readonly kind: 'str';
}
export interface BoolType extends Typed<boolean> {
  readonly kind: 'bool';
}
/** A 64-bit integer type; `narrow` types are `number` and refuse what a double cannot hold. */
export interface IntegerType<T = number | bigint> extends Typed<T> {
  readonly kind: 'int';
  readonly name: string;
  readonly min: bigint;
  readonly max: bigint;
  readonly narrow: boolean;
  /** Command lines take suffixes such as 64k. */
  readonly suffixes: boolean;
}
export interface NumberType extends Typed<number> {
  readonly kind: 'number';
}
export interface AnyValueType extends Typed<unknown> {
  readonly kind: 'any';
}
export interface NothingType extends Typed<null> {
  readonly kind: 'null';
}
export interface EnumType<V extends string = string> extends Typed<V> {
  readonly kind: 'enum';
  readonly name: string;
  readonly values: readonly V[];
  readonly facts: Readonly<Record<string, Facts>>;
}
export interface ListType<T = unknown> extends Typed<T> {
  readonly kind: 'list';
  readonly element: Type;
}
export interface StructType<T = unknown> extends Typed<T> {
  readonly kind: 'struct';
  readonly name: string;
  /** Own members and those of the base, the base's first. */
  readonly members: Members;
  readonly facts: Facts;
}
export interface UnionType<T = unknown> extends Typed<T> {
  readonly kind: 'union';
  readonly name: string;
  readonly base: Members;
  readonly discriminator: string;
  /** Name of the discriminator's enumeration. */
  readonly tagName: string;
  readonly branches: () => Branches;
  /** Of values of the discriminator. */
  readonly tagFacts: Readonly<Record<string, Facts>>;
  readonly facts: Facts;
}
export interface AlternateType<T = unknown> extends Typed<T> {
  readonly kind: 'alternate';
  readonly name: string;
  readonly branches: Readonly<Record<string, Type>>;
}
export interface DeferredType<T = unknown> extends Typed<T> {
  readonly kind: 'deferred';
  readonly name: string;
  /** Called once, before the first validation. */
  define(type: Type): void;
  resolve(): Exclude<Type, DeferredType>;
}

export type Type<T = unknown> = (
  | StrType
  | BoolType
  | IntegerType
  | IntegerType<number>
  | NumberType
  | AnyValueType
  | NothingType
  | EnumType
  | ListType
  | StructType
  | UnionType
  | AlternateType
  | DeferredType
) &
  Typed<T>;

/** A member with facts, or an optional one; a bare type is a mandatory member. */
export interface Member<T = unknown, O extends boolean = boolean> extends Typed<T> {
  readonly kind: 'member';
  readonly type: Type;
  readonly optional: O;
  readonly facts: Facts;
}

export type Members = Readonly<Record<string, Type | Member>>;
/** Null: the value exists and adds no members. */
export type Branches = Readonly<Record<string, StructType | UnionType | null>>;

export type Infer<T> = T extends { readonly [INFER]?: infer V } ? V : never;

type OptionalKeys<M> = { [K in keyof M]: M[K] extends Member<unknown, true> ? K : never }[keyof M];
type Flat<T> = { [K in keyof T]: T[K] };

export type InferMembers<M> = Flat<
  { readonly [K in Exclude<keyof M, OptionalKeys<M>>]: Infer<M[K]> } & {
    readonly [K in OptionalKeys<M>]?: Infer<M[K]>;
  }
>;

type BranchMembers<B> = B extends null ? unknown : Infer<B>;
type InferUnion<M, D extends string, B> = {
  [K in keyof B & string]: Flat<InferMembers<M> & { readonly [P in D]: K } & BranchMembers<B[K]>>;
}[keyof B & string];

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;

export const str: StrType = { kind: 'str' };
export const bool: BoolType = { kind: 'bool' };
export const number: NumberType = { kind: 'number' };
export const any: AnyValueType = { kind: 'any' };
export const nothing: NothingType = { kind: 'null' };

/** A signed 64-bit integer: `number` when safe, else `bigint`. */
export const int: IntegerType = {
  kind: 'int',
  name: 'int64',
  min: INT64_MIN,
  max: INT64_MAX,
  narrow: false,
  suffixes: false,
};
/** An unsigned 64-bit integer, narrowed to `number`. */
export const uint: IntegerType<number> = {
  kind: 'int',
  name: 'uint64',
  min: 0n,
  max: UINT64_MAX,
  narrow: true,
  suffixes: false,
};
/** Bytes, narrowed to `number`; command lines accept the suffixes k M G T P E. */
export const size: IntegerType<number> = { ...uint, name: 'size', suffixes: true };
export const uint32: IntegerType<number> = { ...uint, name: 'uint32', max: 2n ** 32n - 1n };
export const uint16: IntegerType<number> = { ...uint, name: 'uint16', max: 2n ** 16n - 1n };
export const int32: IntegerType<number> = {
  ...uint,
  name: 'int32',
  min: -(2n ** 31n),
  max: 2n ** 31n - 1n,
};

export function optional<T extends Type>(type: T, facts: Facts = {}): Member<Infer<T>, true> {
  return { kind: 'member', type, optional: true, facts };
}

/** A mandatory member with documentation or features. */
export function required<T extends Type>(type: T, facts: Facts = {}): Member<Infer<T>, false> {
  return { kind: 'member', type, optional: false, facts };
}

export function list<T extends Type>(element: T): ListType<readonly Infer<T>[]> {
  return { kind: 'list', element };
}

export function enumeration<const V extends string>(
  name: string,
  values: readonly V[],
  facts: Readonly<Record<string, Facts>> = {},
): EnumType<V> {
  return { kind: 'enum', name, values, facts };
}

interface StructOptions<B extends Members> {
  readonly base?: B;
  readonly facts?: Facts;
}

export function struct<const M extends Members, const B extends Members = Record<never, never>>(
  name: string,
  members: M,
  options: StructOptions<B> = {},
): StructType<Flat<InferMembers<B> & InferMembers<M>>> {
  const base = options.base ?? {};
  for (const key of Object.keys(members)) assert(!(key in base), `${name}.${key} is in the base`);
  return { kind: 'struct', name, members: { ...base, ...members }, facts: options.facts ?? {} };
}

interface UnionOptions<M extends Members, D extends string, B extends Branches> {
  readonly base?: M;
  readonly discriminator: D;
  /** Name of the enumeration made of the branch names. */
  readonly tagName: string;
  readonly branches: B | (() => B);
  readonly tagFacts?: Readonly<Record<string, Facts>>;
  readonly facts?: Facts;
}

export function union<
  const D extends string,
  const B extends Branches,
  const M extends Members = Record<never, never>,
>(name: string, options: UnionOptions<M, D, B>): UnionType<InferUnion<M, D, B>> {
  const { branches } = options;
  return {
    kind: 'union',
    name,
    base: options.base ?? {},
    discriminator: options.discriminator,
    tagName: options.tagName,
    branches: typeof branches === 'function' ? branches : () => branches,
    tagFacts: options.tagFacts ?? {},
    facts: options.facts ?? {},
  };
}

/** A value told apart by its JSON type: at most one branch each of string, object, integer, … */
export function alternate<const B extends Readonly<Record<string, Type>>>(
  name: string,
  branches: B,
): AlternateType<Infer<B[keyof B]>> {
  return { kind: 'alternate', name, branches };
}

/** A type that is used before it can be written down (recursion across folders). */
export function deferred<T>(name: string): DeferredType<T> {
  let target: Type | undefined;
  return {
    kind: 'deferred',
    name,
    define(type: Type): void {
      assert(target === undefined || target === type, `type ${name} is defined twice`);
      target = type;
    },
    resolve: () => resolveType(must(target, `type ${name} is not defined`)),
  };
}

export function resolveType(type: Type): Exclude<Type, DeferredType> {
  return type.kind === 'deferred' ? type.resolve() : type;
}

/** The member in one shape, whether it was given bare or with facts. */
export function memberOf(entry: Type | Member): Member {
  if (entry.kind === 'member') return entry;
  return { kind: 'member', type: entry, optional: false, facts: {} };
}
