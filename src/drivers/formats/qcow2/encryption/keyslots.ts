// SPDX-License-Identifier: Apache-2.0
// Keyslots of an encrypted image that is open. The clusters they lie in hold nothing else, and the
// image keeps other writers of its file away at all times.

import { passwordOf } from '../../../../block/index.js';
import type { OpenContext } from '../../../../block/index.js';
import { limitedDerive } from '../../../../crypto/index.js';
import { HeaderInUse, keyslotIterations } from '../../../../crypto/luks/index.js';
import type { KeyslotChange } from '../../../../crypto/luks/index.js';
import type { LuksAmendMembers } from '../../../../crypto/options.js';
import type { Qcow2Options } from '../options.js';
import type { CryptHeader } from './area.js';

export interface ImageKeyslots {
  /** Id of the secret that opened the image; a reopen that names another one tries none. */
  readonly openedWith: string;
  amend(options: LuksAmendMembers, change: KeyslotChange): Promise<void>;
}

export function keyslotsOf(
  context: OpenContext,
  { crypt, openedWith }: { readonly crypt: CryptHeader; readonly openedWith: string },
  options: NonNullable<Qcow2Options['encrypt']>,
): ImageKeyslots {
  const { host } = context;
  const image = context.child('file').node.filename;
  const limitSeconds = options.format === 'luks' ? options['key-derivation-limit'] : undefined;
  const inUse = new HeaderInUse({
    area: crypt.area,
    header: crypt.header,
    detached: false,
    openedWith,
    password: (id) => passwordOf(context, id),
    tools: (signal) => {
      const derive = limitedDerive({ image, limitSeconds, signal });
      return {
        derive,
        fill: (buffer) => host.fillSecret(buffer),
        iterations: ({ spec, hash }, iterTimeMs) =>
          keyslotIterations({ spec, hash, iterTimeMs }, derive, host),
      };
    },
  });
  return {
    openedWith,
    async amend(wish, change) {
      try {
        await inUse.amend(wish, change);
      } finally {
        crypt.header = inUse.header;
      }
    },
  };
}
