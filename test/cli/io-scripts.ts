// SPDX-License-Identifier: Apache-2.0
// Command lines of `io` that are run beside the real qemu-io: words before the commands, and the
// commands, each of which becomes a -c. The images are those of io-side-by-side.test.ts.

export const SCRIPTS: readonly (readonly [string, string])[] = [
  [
    'a.qcow2',
    'read -P; read -P 256 0 1; read -P -1 0 1; read -P 0xzz 0 1; read x 1; read 0 x; ' +
      'read -1 5; read 0 3G; read 0 2147483136; read 0 9E; read 0 0; read -l 512 0 1k; ' +
      'read -P 0 -l 2k 0 1k',
  ],
  [
    'a.qcow2',
    'read -P 0 -s 2k 0 1k; read -P 0 -s 512 -l 1k 0 1k; read -P 0 -l x 0 1k; ' +
      'read -s x -P 0 0 1k; read -s 512 0 1k; read -P 1 -s 512 0 1k; ' +
      'read -P 1 -s 512 -l 100 0 1k; read 0 1 2',
  ],
  [
    'a.qcow2',
    'read -b 1 3; read -p 0 1; read -Z 0 1; read -vq 0 20; read -Cq 0 1; write -n 0 1; ' +
      'write -zu 0 1; write -u 0 1; write -z -P 1 0 512; write -z -c 0 64k; write -zb 0 1k',
  ],
  [
    'a.qcow2',
    'write -b -P 5 0 64k; read -b -P 5 0 64k; read -b -P 0 64k 64k; info; length; map; ' +
      'read -bv 65k 512; write -b 1G 512; read -b 900G 512; write -b 60P 512; read -b 1P 512; ' +
      'read -b 7E 512; read -b 9223372036854774784 1k; write -b 9223372036854774784 1k; ' +
      'write -b -s abc 0 1k; read -bv 0 512; write -bq 0 1k; write -bC 0 0; write -bc 0 64k; ' +
      'write -bn 0 64k; write -bu 0 64k; read -b 512 513; read -b 0 3G; truncate 2M; ' +
      'read -b -P 0xcd 0 64k; write -bc 0 1k',
  ],
  [
    '-f raw a.raw',
    'write -b 0 512; read -b 0 512; reopen -r; write -b 0 512; read 7E 512; write 7E 512; ' +
      'truncate 7E; discard 7E 1; alloc 7E; writev 7E 512; truncate 8191P; alloc 1k 7E',
  ],
  ['-r a.qcow2', 'write -b 0 512; read -b 0 512'],
  ['-C o.qcow2', 'write -b 0 512; read -b -P 0xcd 0 512; read -b -P 0 512 512'],
  ['-s a.qcow2', 'write -b 0 512; read -b -P 0xcd 0 512; truncate 7E'],
  ['blkdebug::a.qcow2', 'write -b 0 512; read -b -P 0xcd 0 512'],
  ['--image-opts driver=null-co,size=1M', 'write -b 0 512; read -b 0 512'],
  [
    '--image-opts driver=raw,file.driver=qcow2,file.file.filename=a.qcow2',
    'write -b 0 512; read -b -P 0xcd 0 512',
  ],
  [
    'a.qcow2',
    'write -s nofile 0 1k; write -s a.qcow2 -P 1 0 1; write -c 0 512; write -c 0 64k; ' +
      'write -c 512 512; write -bf 0 1k; write -cf 0 64k; write -zn 0 64k; write -zns 0 64k; ' +
      'write -f 0 512; write -p 0 512',
  ],
  [
    'a.qcow2',
    'write 0 1 3; write 0; write x 1; write 0 x; write 1 5; write -zun 100 4k; ' +
      'write -P 300 0 1; write 0 0; write 2M 1; write -z 2M 1; write -z 0 4G; write -q 0 1; ' +
      'write -s empty 0 1k; write -s abc 0 10; read -v 0 10; write -C 0 5',
  ],
  [
    'a.qcow2',
    'writev 0 x; writev 0 1 x; writev 0 1 0; writev -P 999 0 1; writev 5; writev -f 0 3; ' +
      'readv 0 1 -1; readv -P 4 0 3; readv -qv 0 3; readv x 1; write -r 0 1; ' +
      'write -n -z 0 3G; write -uz 0 512; write - 0 512; write -- 0 512; write 0 512 -q',
  ],
  [
    'a.qcow2',
    'read 0x200 010; read 1.5k 1; read 1e3 1; read 1kb 1; read 1b 1; read 1s 1; ' +
      'read 1.0000001 1; read -v 500 20; read -v 0 1; read -v 1M 0; read -P 0 -P 1 0 1; ' +
      'read -a 0 1',
  ],
  [
    'a.qcow2',
    'aio_read x 1; aio_read 0; aio_read 0 x; aio_read -P 5 0 512 512; aio_flush; length',
  ],
  ['a.qcow2', 'aio_read -i 0 1; aio_read -i x 1; aio_write -i 0 1; aio_flush'],
  [
    'a.qcow2',
    'aio_write -z 0 64k; aio_flush; aio_write -u 0 64k; aio_write -zP 1 0 64k; aio_flush; ' +
      'aio_write -z 0 1 1; aio_write 2M 1; aio_flush; length',
  ],
  ['a.qcow2', 'aio_read 2M 1; length'],
  [
    'a.qcow2',
    'aio_flush 1; flush 1; f; discard x 1; discard 0; discard 0 x; discard -5 1; ' +
      'discard 0 3G; discard 2M 1; discard -q 0 5; discard -C 0 512; d -Z 0 1; d 1 7; d 0 0',
  ],
  [
    'a.qcow2',
    'truncate; truncate x; truncate -1; truncate 2M; l; t 1M; l; truncate -m metadata 3M; ' +
      'length; truncate -m foo 3M; truncate -m; truncate 1500; info; map',
  ],
  [
    'a.qcow2',
    'truncate 1k; l; info; truncate 1M; map; truncate -m falloc 4M; map; ' +
      'truncate -m full 5M; map; info; truncate 9E; truncate 1M 3; truncate -x 1; ' +
      'truncate 0; info; map; alloc 0',
  ],
  [
    'a.qcow2',
    'length 1; alloc x; alloc -1; alloc 0 x; alloc 0 3G; alloc 6M; alloc 1M 20M; ' +
      'alloc 0 0; alloc 100 512; a; map 1; map; info 3; i',
  ],
  ['b.qcow2', 'map; alloc 0 1M; alloc 64k 64k; alloc 100 100k; alloc 1'],
  [
    'o.qcow2',
    'map; read -P 3 64k 1k; write 0 1k; map; read -P 0xcd 0 1k; info; write -z 64k 64k; ' +
      'read -P 0 64k 64k; discard 0 64k; read -v 0 16; map',
  ],
  ['', 'sleep'],
  ['', 'sleep x; sleep -1; sleep 1x; sleep 10; sleep 0x1; sleep 010'],
  ['', 'quit 1'],
  ['', 'sigraise 0; sigraise x; sigraise -1; sigraise 99; sigraise 1k; sigraise'],
  ['a.qcow2', 'close; length; close'],
  ['a.qcow2', 'close 1; close; open nosuch; length'],
  ['a.qcow2', 'close; open -r b.qcow2; write 0 1; length'],
  ['a.qcow2', 'close; open -o driver=raw b.qcow2; length'],
  ['a.qcow2', 'close; open -o driver=raw; length'],
  ['a.qcow2', 'close; open -o driver=null-co,size=1M; length; info'],
  [
    'a.qcow2',
    'close; open -Z b; open a b; open -t foo b.qcow2; open -d foo b.qcow2; ' +
      'open -i foo b.qcow2; o -rU b.qcow2; length',
  ],
  ['a.qcow2', 'close; o -U b.qcow2'],
  ['a.qcow2', 'close; open -o backing.driver=qcow2 o.qcow2; read -v 64k 8; write 0 1k; map'],
  ['a.qcow2', 'close; open -o backing.driver=raw o.qcow2; read -v 0 8; write 0 1k'],
  ['a.qcow2', 'close; open -o backing.driver=qcow2 b.qcow2; length'],
  [
    '--image-opts driver=qcow2,file.filename=o.qcow2,backing.driver=raw,backing.offset=512',
    'read -v 0 8; length',
  ],
  ['a.qcow2', 'close; open -n b.qcow2; length; write 0 1k; read 3 5'],
  ['a.qcow2', 'close; open -k b.qcow2'],
  ['a.qcow2', 'close; open -o foo=bar b.qcow2'],
  ['a.qcow2', 'close; open -o driver=qcow2,file.align=512 blkdebug::b.qcow2; write 513 9; length'],
  [
    'a.qcow2',
    'close; open -o file.driver=blkdebug,file.inject-error.event=l2_load,' +
      'file.inject-error.once=on b.qcow2; read 64k 512; read 64k 512',
  ],
  ['a.qcow2', 'close; open -o foo b.qcow2'],
  [
    'a.qcow2',
    'close; open -o lazy-refcounts=on b.qcow2; info; write 0 1k; close; open a.qcow2; ' +
      'length',
  ],
  ['a.qcow2', 'close; open -s b.qcow2; write 0 64k; map; info; read -P 3 64k 1k'],
  ['a.qcow2', 'close; open -C o.qcow2; read 64k 1k; info; map'],
  ['a.qcow2', 'close; open -sr b.qcow2; write 0 64k; map; info'],
  ['a.qcow2', 'open; open b.qcow2; open -Z'],
  ['a.qcow2', 'help zz; help read write'],
  [
    'a.qcow2',
    'break write_aio t; break nosuch t; resume x; remove_break x; resume; wait_break; ' +
      'remove_break; break',
  ],
  [
    'blkdebug::a.qcow2',
    'break write_aio t; aio_write 0 64k; wait_break t; length; resume t; aio_flush',
  ],
  ['blkdebug::a.qcow2', 'break nosuch t; resume x; remove_break x'],
  [
    'blkdebug::a.qcow2',
    'break write_aio t; break read_aio t; remove_break t; remove_break t; write 0 64k',
  ],
  [
    'blkdebug::a.qcow2',
    'break write_aio t; aio_write 0 64k; wait_break t; remove_break t; aio_flush',
  ],
  [
    'blkdebug::a.qcow2',
    'break l2_update A; aio_write 0 64k; wait_break A; length; resume A; aio_flush; map',
  ],
  ['a.qcow2', 'reopen; reopen -r; write 0 1; reopen -w; write 0 1'],
  ['a.qcow2', 'reopen -rw'],
  ['a.qcow2', 'reopen -c none; write 0 5; reopen -c foo'],
  ['a.qcow2', 'reopen -o lazy-refcounts=on; info; write 0 1k'],
  ['a.qcow2', 'reopen -o foo=1'],
  [
    'a.qcow2',
    'reopen -c writethrough; reopen -o cache.direct=on; ' +
      'reopen -c none -o cache.direct=off; reopen -r -o read-only=off; length',
  ],
  ['a.qcow2', 'reopen a; reopen -x; reopen -r -w; reopen -w -w; reopen -o'],
  ['a.qcow2', 'reopen -o file.locking=off'],
  ['a.qcow2', 'reopen -o driver=raw'],
  [
    'a.qcow2',
    'reopen -o cache-size=1M; reopen -o l2-cache-size=512k; reopen -o refcount-cache-size=128k; ' +
      'reopen -o cache-size=1M,l2-cache-size=64k,refcount-cache-size=64k; ' +
      'reopen -o l2-cache-size=256T; reopen -o overlap-check=all; ' +
      'reopen -o overlap-check.main-header=off; reopen -o overlap-check=blubb; ' +
      'reopen -o overlap-check=constant,overlap-check.template=all; ' +
      'reopen -o overlap-check.template=blubb; reopen -o detect-zeroes=foo; ' +
      'reopen -o cache.writeback=on; write 0 64k',
  ],
  [
    '',
    'open -o overlap-check=constant,overlap-check.template=all a.qcow2; ' +
      'open -o overlap-check=blubb a.qcow2; open -o file.filename=x a.qcow2; ' +
      'open -r -U -o driver=null-co,force-share=off; ' +
      'open -o overlap-check=none,overlap-check.template=none a.qcow2; length',
  ],
  [
    '',
    'open -o driver=blkdebug,image.driver=qcow2,align=4k,max-transfer=64k blkdebug::b.qcow2; ' +
      'write -P 1 1000 128k; read -P 1 1000 128k; close; ' +
      'open -o driver=blkdebug,image.driver=qcow2 b.qcow2; read -P 1 1000 128k',
  ],
  ['a.qcow2', 'reopen -o read-only=on; write 0 1'],
  ['a.qcow2', 'reopen -o detect-zeroes=on; write -P 0 0 64k; map'],
  ['a.qcow2', 'reopen -o file=x'],
  ['a.qcow2', 'reopen -o backing=x; reopen -o foo'],
  [
    'o.qcow2',
    'reopen -o lazy-refcounts=on; read 0 1; reopen -r; read -P 3 64k 1k; reopen -w; ' +
      'write 64k 1; reopen -c none; map',
  ],
  ['-r a.qcow2', 'reopen -w; write 0 512; reopen -r; write 0 512; reopen -w; write 0 512'],
  [
    '-f raw a.raw',
    'reopen -r; write 0 1; reopen -w; write 0 1; info; map; length; truncate 1M; length; ' +
      'map; truncate -m falloc 2M; truncate -m full 3M; truncate 1500; length; ' +
      'write -z 0 1k; discard 64k 64k; write -c 0 64k; alloc 0 1M; write -zu 128k 64k; ' +
      'write -zn 192k 64k; read -v 192k 8',
  ],
  ['a.raw', 'length; write 0 1; write -s abc 0 512; read 0 512'],
  ['-r a.raw', 'length'],
  ['-f raw nosuch', 'length'],
  [
    '--image-opts driver=null-co,size=1073741825',
    'length; map; read 0 512; write 0 512; write -c 0 512; alloc 0 1k; flush; ' +
      'discard 0 1k; info; truncate 1M; write -z 0 1k',
  ],
  ['--image-opts driver=null-co,size=1048575', 'length; map'],
  ['-f raw a.qcow2', 'length; info'],
  ['-f foo a.qcow2', 'length'],
  ['-t foo a.qcow2', 'length'],
  ['-d foo a.qcow2', 'length'],
  ['-i foo a.qcow2', 'length'],
  ['-k a.qcow2', 'length'],
  ['-k -n a.qcow2', 'length; write 5 7; read -P 0xcd 5 7'],
  ['-m a.qcow2', 'length'],
  ['-U a.qcow2', 'length'],
  ['-rU a.qcow2', 'length'],
  ['--image-opts driver=qcow2,file.filename=a.qcow2', 'length'],
  ['--image-opts file.filename=a.qcow2', 'info'],
  [
    '--image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2,lazy-refcounts=on',
    'info; write 0 64k',
  ],
  ['--image-opts -f qcow2 file.filename=a.qcow2', 'length'],
  ['--image-opts a.qcow2', 'length'],
  ['--image-opts foo=bar', 'length'],
  ['--object foo,id=s a.qcow2', 'length'],
  ['-s a.qcow2', 'write 0 64k; map; info'],
  ['-s o.qcow2', 'read -P 3 64k 1k; write 0 64k; map; truncate 5M; map'],
  ['-T foo a.qcow2', 'length'],
  ['-C o.qcow2', 'info; read 64k 1k; map'],
  ['-rC a.qcow2', 'length'],
  ['-d unmap b.qcow2', 'discard 64k 64k; map'],
  ['-d ignore b.qcow2', 'discard 64k 64k; map'],
  ['-s -r a.qcow2', 'write 0 1'],
  ['--image-opts driver=qcow2,file.filename=nosuch', 'length'],
  ['-f qcow2 nosuch', 'length'],
  ['/tmp', 'length'],
  ['json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}', 'length; map'],
  ['foo:bar', 'length'],
  ['-i io_uring a.qcow2', 'length'],
  ['-i native a.qcow2', 'length'],
  ['--read-only --format=qcow2 a.qcow2', 'length'],
  ['--form raw a.qcow2', 'length'],
  ['-t writethrough -t none -n a.qcow2', 'length; write 0 10'],
  ['-t writethrough a.qcow2', 'write 0 64k; reopen -c writeback; write 0 64k'],
  ['-t unsafe a.qcow2', 'write 0 64k; flush'],
  ['-t directsync a.qcow2', 'write 0 64k; flush'],
  ['-f qcow2 blkdebug::a.qcow2', 'length; info; map'],
  [
    'a.qcow2',
    'write 0 512k; discard 64k 64k; discard 192k 128k; flush; write 512k 256k; write 64k 64k; ' +
      'write 768k 128k; truncate 2M; map',
  ],
  [
    '--image-opts driver=blkdebug,opt-write-zero=256k,opt-discard=256k,' +
      'image.driver=qcow2,image.file.filename=a.qcow2',
    'write -P 1 0 1M; write -z 100k 700k; discard 100k 700k; discard 0 128k; map; read -v 100k 8',
  ],
  [
    '--image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,' +
      'file.inject-error.0.event=l2_update,file.inject-error.0.errno=5',
    'write 0 64k',
  ],
  ['-d unmap a.raw -f raw', 'discard 0 64k; write 0 1k; flush'],
  [
    '--image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=b.qcow2,' +
      'file.inject-error.0.event=read_aio,file.inject-error.0.errno=28,file.inject-error.0.once=on',
    'read 64k 1k; read 64k 1k',
  ],
  ['o.qcow2', 'write -z 250k 20k; write -z 60k 8k; map; read 0 320k'],
  ['o.qcow2', 'write -zn 1M 4k; map; write -zn 126k 4k; write -z 1090k 8k; write -zun 10k 3k; map'],
  [
    '-f raw a.raw',
    'writev 0 1k 2k; readv -v 0 8 8; readv -P 0xcd 0 1k 2k; writev -P 7 5 3; read -v 0 16; ' +
      'aio_write -P 9 100 5 5; aio_flush; read -v 96 20; truncate 100; length; read 96 8; ' +
      'read 96 4; write 99 2; truncate 1k; read -v 96 8',
  ],
];
