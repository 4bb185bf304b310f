// SPDX-License-Identifier: Apache-2.0
// From planned source parts and reserved target pieces to the steps of a lane task. Pure.
/** The files of a batch, each named once by its place. */
export class FileTable {
    files = [];
    indexOf(file) {
        const known = this.files.indexOf(file);
        return known >= 0 ? known : this.files.push(file) - 1;
    }
}
/** The parts of a sub-range, cut to it. */
export function cutParts(range, offset, length) {
    const parts = [];
    let position = range.offset;
    for (const part of range.parts) {
        const start = Math.max(position, offset);
        const end = Math.min(position + part.length, offset + length);
        if (start < end)
            parts.push(cutPart(part, start - position, end - start));
        position += part.length;
        if (position >= offset + length)
            break;
    }
    return parts;
}
function cutPart(part, skip, length) {
    if (part.kind === 'zero')
        return { kind: 'zero', length };
    if (part.kind === 'data')
        return { ...part, hostOffset: part.hostOffset + skip, length };
    return { ...part, skip: part.skip + skip, length };
}
/** Ranges that hold data, rounded out to `unit`, merged, inside the range; the rest is zero. */
export function dataSpans(range, unit) {
    const spans = [];
    const rangeEnd = range.offset + range.length;
    let position = range.offset;
    for (const part of range.parts) {
        const partEnd = position + part.length;
        if (part.kind !== 'zero') {
            const start = Math.max(range.offset, Math.floor(position / unit) * unit);
            const end = Math.min(rangeEnd, Math.ceil(partEnd / unit) * unit);
            const last = spans.at(-1);
            if (last !== undefined && last.offset + last.length >= start) {
                last.length = Math.max(last.length, end - last.offset);
            }
            else
                spans.push({ offset: start, length: end - start });
        }
        position = partEnd;
    }
    return spans;
}
/** What of the range no span covers. */
export function gapsBetween(range, spans) {
    const gaps = [];
    let position = range.offset;
    for (const span of spans) {
        if (span.offset > position)
            gaps.push({ offset: position, length: span.offset - position });
        position = span.offset + span.length;
    }
    const end = range.offset + range.length;
    if (end > position)
        gaps.push({ offset: position, length: end - position });
    return gaps;
}
export function laneParts(parts, table) {
    return parts.map((part) => {
        if (part.kind === 'zero')
            return part;
        const file = table.indexOf(part.file);
        if (part.kind === 'data') {
            return { kind: 'data', length: part.length, file, offset: part.hostOffset };
        }
        return {
            kind: 'compressed',
            length: part.length,
            file,
            offset: part.hostOffset,
            compressedLength: part.compressedLength,
            inflatedLength: part.inflatedLength,
            skip: part.skip,
        };
    });
}
/** Fills one reserved piece from the range's parts. */
export function pieceStep(range, piece, context) {
    const parts = cutParts(range, piece.offset, piece.length);
    return {
        parts: laneParts(parts, context.table),
        length: piece.length,
        target: {
            kind: 'file',
            file: context.table.indexOf(piece.file),
            offset: piece.hostOffset,
        },
        zeroGranularity: context.zeroGranularity,
        skipZeroes: true,
        hostCopies: context.hostCopies ?? false,
        deflate: false,
    };
}
export function allZero(parts) {
    return parts.every((part) => part.kind === 'zero');
}
