CREATE TABLE "First" (id integer PRIMARY KEY);
