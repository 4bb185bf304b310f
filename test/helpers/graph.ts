// SPDX-License-Identifier: Apache-2.0
// A graph over a simulated host with the drivers of this repository.
import { Permission, SeededRandom, type PermissionPair } from '../../src/base/index.js';
import {
  createGraph,
  createRegistry,
  type Driver,
  type Graph,
  type GraphParts,
} from '../../src/block/index.js';
import { rawDriver } from '../../src/drivers/formats/raw/index.js';
import { fileDriver } from '../../src/drivers/protocols/file/index.js';
import { nullDriver } from '../../src/drivers/protocols/null-co/index.js';
import { MemoryHost, type Host } from '../../src/host/index.js';

export const READ_WRITE: PermissionPair = {
  taken: Permission.consistentRead | Permission.write,
  shared: Permission.all,
};
export const READ_ONLY: PermissionPair = {
  taken: Permission.consistentRead,
  shared: Permission.all,
};

type AnyDriver = Driver<never>;

export function graphOn(
  host: Host,
  more: readonly AnyDriver[] = [],
  onEvent?: GraphParts['onEvent'],
): Graph {
  const drivers = [fileDriver, nullDriver, rawDriver, ...more] as unknown as readonly Driver[];
  const registry = createRegistry({
    drivers: Object.fromEntries(
      drivers.map((driver) => [driver.name, () => Promise.resolve(driver)]),
    ),
  });
  const random = new SeededRandom(1);
  const events = onEvent === undefined ? {} : { onEvent };
  return createGraph({ host, registry, clock: host.clock, random, ...events });
}

/** A file of the given bytes, or of `size` zeroes. */
export async function makeFile(
  host: Host,
  path: string,
  content: Uint8Array | number,
): Promise<void> {
  const file = await host.createFile(path);
  if (typeof content === 'number') await file.truncate(content);
  else await file.write(content, 0);
  await file.close();
}

export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  new SeededRandom(seed).fill(bytes);
  return bytes;
}

export async function errorOf(action: () => unknown): Promise<Error> {
  try {
    await action();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('expected a refusal');
}

export { MemoryHost };
