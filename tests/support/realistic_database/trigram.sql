-- Only where the server has the extension.
CREATE EXTENSION pg_trgm;
CREATE INDEX purchase_note_trigram ON "TokenPurchase" USING gin ("note" public.gin_trgm_ops);
