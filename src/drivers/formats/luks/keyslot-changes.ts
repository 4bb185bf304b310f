// SPDX-License-Identifier: Apache-2.0
// Keyslots of an open LUKS image change, while nobody else reads or writes the file.
//
// The file is kept from others, also from other processes through its locks, from beginAmend() on
// to the end of the last change; guests of the node itself read and write on, for their data does
// not lie where the header does.

import { Permission } from '../../../base/index.js';
import type { PermissionPair } from '../../../base/index.js';
import type { AmendContext, AmendOptions, Child, OpenContext } from '../../../block/index.js';
import { passwordOf } from '../../../block/index.js';
import { limitedDerive } from '../../../crypto/index.js';
import type { DerivationLimit } from '../../../crypto/index.js';
import { HeaderInUse, keyslotIterations } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { validate } from '../../../schema/index.js';
import { headerArea } from './area.js';
import { luksAmendOptions } from './options.js';

export interface OpenedLuks {
  /** What holds the header: the child `header`, or `file` with the payload behind it. */
  readonly holder: Child;
  readonly header: LuksHeader;
  /** Id of the secret that opened it. */
  readonly openedWith: string;
  readonly limit: DerivationLimit;
}

export class KeyslotChanges {
  readonly #inUse: HeaderInUse;
  readonly #holder: string;
  readonly #refresh: () => void;
  #changes = 0;

  constructor(context: OpenContext, { holder, header, openedWith, limit }: OpenedLuks) {
    const { host } = context;
    this.#refresh = () => context.permissionsChanged?.();
    this.#holder = holder.name;
    this.#inUse = new HeaderInUse({
      area: headerArea(holder),
      header,
      detached: holder.name === 'header',
      openedWith,
      password: (id) => passwordOf(context, id),
      tools: (signal) => {
        const derive = limitedDerive({ ...limit, signal });
        return {
          derive,
          fill: (buffer) => host.fillSecret(buffer),
          iterations: ({ spec, hash }, iterTimeMs) =>
            keyslotIterations({ spec, hash, iterTimeMs }, derive, host),
        };
      },
    });
  }

  get header(): LuksHeader {
    return this.#inUse.header;
  }

  /** Keeps others out until the result is called, once. Throws kind `permission` or `locked`. */
  begin(): () => void {
    this.#changes += 1;
    try {
      this.#refresh();
    } catch (error) {
      this.#changes -= 1;
      throw error;
    }
    return () => {
      this.#changes -= 1;
      this.#refresh();
    };
  }

  /** Refusals of the options come before those of other users. */
  async amend(options: AmendOptions, context: AmendContext): Promise<void> {
    const wish = validate(luksAmendOptions, options);
    const end = this.begin();
    try {
      await this.#inUse.amend(wish, context);
    } finally {
      end();
    }
  }

  /**
   * On the file, from what the users of the image need, and on a header that lies apart, which is
   * only read. That it can be read is asked for at any time, so that a change keeps others out.
   */
  permissions(child: string, { taken, shared }: PermissionPair): PermissionPair {
    const { consistentRead, write, resize, all } = Permission;
    const isHeader = child === 'header';
    const wanted = isHeader ? consistentRead : taken | consistentRead;
    const left = isHeader ? all & ~(write | resize) : shared;
    if (this.#changes === 0 || child !== this.#holder) return { taken: wanted, shared: left };
    return { taken: wanted | write, shared: left & ~(consistentRead | write) };
  }
}
