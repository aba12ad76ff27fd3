-- Keeps one turn of a conversation.
--
-- KEYS  1 the turn
-- ARGV  1 the turn before ('' for none), 2 its items, 3 ttl_ms
-- Reply 1

redis.call('HSET', KEYS[1], 'p', ARGV[1], 'i', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
