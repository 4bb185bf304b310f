// SPDX-License-Identifier: Apache-2.0
// Formats that other programs recognise by an image's first bytes and that have no driver here.
//
// An image whose format was not given is refused when it begins like one of them, since reading it
// as raw would hand out its headers as a disk; a guessed raw image may not be made to look so
// either. With an explicit format nothing of this is asked.
const MAGICS = [
    { format: 'luks', offset: 0, bytes: 'LUKS\u00ba\u00be' },
    { format: 'qcow', offset: 0, bytes: 'QFI\u00fb\0\0\0\u0001' },
    { format: 'qed', offset: 0, bytes: 'QED\0' },
    { format: 'vmdk', offset: 0, bytes: 'KDMV' },
    { format: 'vmdk', offset: 0, bytes: 'COWD' },
    { format: 'vmdk', offset: 0, bytes: '# Disk DescriptorFile' },
    { format: 'vdi', offset: 64, bytes: '\u007f\u0010\u00da\u00be' },
    { format: 'vhdx', offset: 0, bytes: 'vhdxfile' },
    { format: 'vpc', offset: 0, bytes: 'conectix' },
    { format: 'parallels', offset: 0, bytes: 'WithoutFreeSpace' },
    { format: 'parallels', offset: 0, bytes: 'WithouFreSpacExt' },
    { format: 'bochs', offset: 0, bytes: 'Bochs Virtual HD Image' },
    { format: 'cloop', offset: 0, bytes: '#!/bin/sh\n#V2.0 Format\n' },
];
/** The name of a format without a driver here that begins like `head`, or null. */
export function foreignFormat(head) {
    return MAGICS.find((magic) => begins(head, magic))?.format ?? null;
}
function begins(head, { offset, bytes }) {
    if (offset + bytes.length > head.length)
        return false;
    for (let at = 0; at < bytes.length; at += 1) {
        if (head[offset + at] !== bytes.charCodeAt(at))
            return false;
    }
    return true;
}
